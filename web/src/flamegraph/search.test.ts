import { describe, expect, test } from 'vitest';

import { nextHit, parseQuery, search, zoomToReveal } from './search';
import { frameOf, graphOf, nodeNamed } from './testgraphs';

function matches(text: string, name: string, module = '/bin/x'): boolean {
  const query = parseQuery(text);
  return query?.ok === true && query.matches({ ...frameOf(name), module, file: '/src/a.rs' });
}

describe('queries', () => {
  test('text is found anywhere, whatever its case, and its signs mean themselves', () => {
    expect(matches('Alloc', 'std::alloc::alloc')).toBe(true);
    expect(matches('a.c', 'abc')).toBe(false);
    expect(matches('operator()(', 'f::operator()(int)')).toBe(true);
    expect(matches('(*', 'net/http.(*conn).serve')).toBe(true);
  });

  test('between slashes it is a regular expression', () => {
    expect(matches('/^a.c$/', 'ABC')).toBe(true);
    expect(matches('/^a.c$/u', 'ABC')).toBe(false);
    const global = parseQuery('/a/g');
    if (global?.ok !== true) throw new Error('a sound query');
    expect([1, 2, 3].map(() => global.matches(frameOf('a')))).toEqual([true, true, true]);
  });

  test('a path is no expression, a broken expression says so, and nothing is no query', () => {
    expect(matches('/usr/lib', '/usr/lib/x')).toBe(true);
    expect(parseQuery('/(/')).toMatchObject({ ok: false });
    expect(parseQuery('/a/ii')).toMatchObject({ ok: false });
    expect(parseQuery('  ')).toBeUndefined();
    expect(parseQuery('module:')).toBeUndefined();
  });

  test('files and modules are looked for with their key', () => {
    expect(matches('module:libc', 'f', '/lib/libc.so.6')).toBe(true);
    expect(matches('module:/^\\/bin/', 'f')).toBe(true);
    expect(matches('file:a.rs', 'f')).toBe(true);
    expect(matches('file:a.rs', 'a.rs', '')).toBe(true);
    expect(matches('module:a.rs', 'a.rs')).toBe(false);
  });
});

describe('hits', () => {
  const graph = graphOf('m;f;g;f 4', 'm;f;g 2', 'm;g 8', 'f 16', 'z 70');
  const result = search(graph, (frame) => frame.name === 'f');

  test('below a hit are counted once', () => {
    expect([...result.hits]).toEqual([1, 3, 5]);
    expect(result.value).toBe(22);
    expect(result.before.at(-1)).toBe(3);
  });

  test('the root is none', () => {
    expect(search(graph, () => true).hits.length).toBe(graph.nodeCount - 1);
    expect(search(graph, () => true).value).toBe(100);
  });

  test('follow each other around the ends', () => {
    expect([1, 3, 5].map((node) => nextHit(graph, result, node, 1))).toEqual([3, 5, 1]);
    expect([1, 3, 5].map((node) => nextHit(graph, result, node, -1))).toEqual([5, 1, 3]);
  });

  test('begin with the widest, from wherever else one is', () => {
    expect([0, 2, 7].map((node) => nextHit(graph, result, node, 1))).toEqual([1, 1, 1]);
    const narrowFirst = graphOf('a;f 1', 'b;f 7', 'c;f 2');
    const found = search(narrowFirst, (frame) => frame.name === 'f');
    expect(narrowFirst.total[nextHit(narrowFirst, found, 0, 1)]).toBe(7);
    expect(nextHit(graph, search(graph, () => false), 0, 1)).toBe(-1);
  });
});

describe('a hit that is hidden', () => {
  const graph = graphOf('main;a;tiny 1', 'main;a;big 99', 'main;b 9900');
  const node = (name: string): number => nodeNamed(graph, name);

  test('is zoomed to as little as needed', () => {
    // 1 of 10,000 in 1,000 pixels is 0.1 pixel; 1 of 100 is 10.
    expect(zoomToReveal(graph, node('tiny'), 0, 1000, 10)).toBe(node('a'));
    expect(zoomToReveal(graph, node('tiny'), 0, 1000, 60)).toBe(node('tiny'));
    expect(zoomToReveal(graph, node('tiny'), 0, 100_000, 10)).toBe(0);
  });

  test('stays where one is if it is seen there, and leaves a zoom that it is not in', () => {
    expect(zoomToReveal(graph, node('tiny'), node('a'), 1000, 10)).toBe(node('a'));
    expect(zoomToReveal(graph, node('main'), node('a'), 1000, 10)).toBe(node('a'));
    expect(zoomToReveal(graph, node('b'), node('a'), 1000, 10)).toBe(0);
  });
});
