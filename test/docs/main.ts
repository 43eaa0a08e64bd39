/** `npm run docs`: writes the generated parts of the pages anew. */
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { render } from "./Generated.ts"
import { paths, read, root } from "./Pages.ts"

for (const path of paths) {
  const page = read(path)
  const rendered = await render(page, join(root, path))
  if (rendered === page) continue
  writeFileSync(join(root, path), rendered)
  console.log(path)
}
