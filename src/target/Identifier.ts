/** PostgreSQL identifiers as SQL text: the only way a name enters a statement. */

/** Quotes a name; dots, quotes, case and reserved words are part of it. */
export const quote = (name: string): string => `"${name.replaceAll('"', '""')}"`

/** A schema-qualified, quoted name: it never depends on the `search_path`. */
export const qualified = (schema: string, name: string): string => `${quote(schema)}.${quote(name)}`
