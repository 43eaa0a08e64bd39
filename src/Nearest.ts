/** The name that was probably meant. */
const distance = (a: string, b: string): number => {
  let previous = Array.from({ length: b.length + 1 }, (_, column) => column)
  for (let row = 1; row <= a.length; row++) {
    const current = [row]
    for (let column = 1; column <= b.length; column++) {
      const replaced = previous[column - 1] + (a[row - 1] === b[column - 1] ? 0 : 1)
      current.push(Math.min(previous[column] + 1, current[column - 1] + 1, replaced))
    }
    previous = current
  }
  return previous[b.length]
}

/** The known name that was most likely meant, when one is near enough. */
export const nearest = (name: string, known: ReadonlyArray<string>, limit = Math.max(2, name.length / 3)) =>
  known
    .map((candidate) => ({ candidate, distance: distance(name, candidate) }))
    .filter((near) => near.distance <= limit)
    .sort((a, b) => a.distance - b.distance)
    .at(0)?.candidate
