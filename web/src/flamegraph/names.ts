// Names of functions, shortened so that what tells them apart stays. A box that is too narrow for
// `core::iter::traits::iterator::Iterator::fold<T>` shows `Iterator::fold`, and only then an ellipsis.

/**
 * The name without arguments and type parameters, and of its path the last two parts. Names that are no
 * paths (`[libc.so.6+0x1f]`, `/usr/bin/x`, `operator<<`) come back as they are, or nearly so.
 */
export function shortName(name: string): string {
  if (name.startsWith('[') || name.startsWith('/') || name.includes('operator')) return name;
  const bare = withoutBrackets(name).trim();
  if (bare === '') return name;
  // Go: `net/http.(*conn).serve` is told by all that follows the last slash. With a space before it the
  // slash belongs to a file: `~loop /app/x.js`.
  const slash = bare.lastIndexOf('/');
  if (slash >= 0 && !bare.includes('::')) return bare.includes(' ') ? bare : bare.slice(slash + 1);
  const separator = bare.includes('::') ? '::' : '.';
  const parts = bare.split(separator).filter((part) => part !== '');
  return parts.length <= 2 && separator === '.' ? bare : parts.slice(-2).join(separator);
}

/** Drops what stands in `<…>` and `(…)`, except Go's `(*Type)` and names that begin so. */
function withoutBrackets(name: string): string {
  let kept = '';
  let angles = 0;
  let rounds = 0;
  for (let at = 0; at < name.length; at++) {
    const character = name.charAt(at);
    if (character === '<') {
      // `<T as Trait>::method` is told by its trait's and its method's name.
      if (at === 0) {
        const inner = qualifiedTrait(name);
        if (inner !== undefined) return withoutBrackets(inner);
      }
      angles++;
    } else if (character === '>' && angles > 0 && name.charAt(at - 1) !== '-') {
      angles--;
    } else if (character === '(' && angles === 0 && name.charAt(at + 1) !== '*') {
      rounds++;
    } else if (character === ')' && rounds > 0) {
      rounds--;
    } else if (angles === 0 && rounds === 0) {
      kept += character;
    }
  }
  return kept;
}

/** `Trait::method` of `<T as Trait>::method`. */
function qualifiedTrait(name: string): string | undefined {
  let angles = 0;
  let as = -1;
  for (let at = 0; at < name.length; at++) {
    const character = name.charAt(at);
    if (character === '<') angles++;
    if (angles === 1 && as < 0 && name.startsWith(' as ', at)) as = at + 4;
    if (character === '>' && name.charAt(at - 1) !== '-' && --angles === 0) {
      const inner = as > 0 ? name.slice(as, at) : name.slice(1, at);
      return inner + name.slice(at + 1);
    }
  }
  return undefined;
}

/** FNV-1a over UTF-16 units: the same number for a name in every session. */
export function hashText(text: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  return hash >>> 0;
}
