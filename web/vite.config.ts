import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

import { defineConfig, type Plugin } from 'vitest/config';

/**
 * The server sends files as they lie in `dist`, so each that shrinks lies there compressed as well. What an
 * earlier build left is removed here, not by Vite: `dist/.gitignore` stays.
 */
function compressed(): Plugin {
  const assets = join(import.meta.dirname, 'dist/assets');
  return {
    name: 'compressed',
    apply: 'build',
    buildStart: () => rmSync(assets, { recursive: true, force: true }),
    closeBundle: () => {
      const files = readdirSync(assets).map((name) => join(assets, name));
      for (const file of [join(assets, '../index.html'), ...files]) {
        const bytes = readFileSync(file);
        const smaller = gzipSync(bytes, { level: 9 });
        if (smaller.length < bytes.length) writeFileSync(`${file}.gz`, smaller);
      }
    },
  };
}

export default defineConfig({
  // The server may stand behind a proxy under any path.
  base: './',
  esbuild: { jsx: 'automatic', jsxImportSource: 'preact' },
  plugins: [compressed()],
  build: { target: 'es2022', assetsInlineLimit: 0, emptyOutDir: false, modulePreload: { polyfill: false } },
  // `npm run dev` beside a server that runs; SPANFLAME says where.
  server: { proxy: { '/api': process.env.SPANFLAME ?? 'http://127.0.0.1:19090' } },
  // The machine that runs this may have much else to do.
  test: { testTimeout: 60_000, environment: 'node', include: ['src/**/*.test.ts', 'src/**/*.test.tsx'] },
});
