// Prints what the page weighs, and fails if it is more than was promised.
import { readdirSync, readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

const LIMIT_BYTES = 60 * 1024;

let total = 0;
for (const entry of readdirSync('dist', { recursive: true, withFileTypes: true })) {
  if (!entry.isFile()) continue;
  if (entry.name.endsWith('.gz') || entry.name.startsWith('.')) continue;
  const name = `${entry.parentPath ?? entry.path}/${entry.name}`;
  const bytes = gzipSync(readFileSync(name), { level: 9 }).length;
  total += bytes;
  console.log(`${String(bytes).padStart(8)}  ${name}`);
}
console.log(`${String(total).padStart(8)}  bytes in all after gzip; the limit is ${LIMIT_BYTES}`);
if (total > LIMIT_BYTES) {
  console.error('the page is too heavy');
  process.exit(1);
}
