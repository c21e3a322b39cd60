import { describe, expect, test } from 'vitest';

import { changeColour, frameColour } from './colours';
import { detailsOf, treeItems } from './details';
import { diff } from './diff';
import { FrameClass } from './graph';
import { shortName } from './names';
import { nodeOfPath, nodePath } from './nodepath';
import { frameOf, graphOf, nodeNamed } from './testgraphs';
import { fileName, formatChange, formatShare, formatValue } from './values';
import { DEFAULT_STATE, formatState, parseState } from '../app/urlstate';

describe('values', () => {
  test.each([
    [0, 'nanoseconds', '0 ns'],
    [999, 'nanoseconds', '999 ns'],
    [1_000, 'nanoseconds', '1 µs'],
    [1_234_567_890, 'nanoseconds', '1.23 s'],
    [90e9, 'nanoseconds', '1.5 min'],
    [1_500, 'milliseconds', '1.5 s'],
    [-2_000_000, 'nanoseconds', '−2 ms'],
    [1536, 'bytes', '1.5 KiB'],
    [0, 'bytes', '0 B'],
    [12_345, 'count', '12,345 samples'],
    [12_345_678, 'count', '12.3 M samples'],
    [7, 'widgets', '7 widgets'],
  ])('%d %s', (value, unit, text) => {
    expect(formatValue(value, unit, 'samples')).toBe(text);
  });

  test('shares: what is tiny is not nothing, and all is all', () => {
    expect([0, 1e-9, 0.0042, 0.1234, 0.9999, 1].map((part) => formatShare(part, 1))).toEqual([
      '0 %',
      '<0.01 %',
      '0.42 %',
      '12.3 %',
      '100 %',
      '100 %',
    ]);
    expect(formatShare(0, 0)).toBe('–');
    expect([formatChange(Infinity), formatChange(-100), formatChange(12.5), formatChange(-3)]).toEqual([
      'new',
      'gone',
      '+12.5 %',
      '−3.0 %',
    ]);
  });

  test('files without their folder', () => {
    expect(['/usr/lib/libc.so.6', '/tmp/x (deleted)', '[vdso]', ''].map(fileName)).toEqual(['libc.so.6', 'x', '[vdso]', '']);
  });
});

describe('short names', () => {
  test.each([
    ['core::iter::traits::iterator::Iterator::fold<T, F>', 'Iterator::fold'],
    ['std::vector<int, std::allocator<int> >::push_back(int const&)', 'vector::push_back'],
    ['<alloc::vec::Vec<T> as core::ops::drop::Drop>::drop', 'Drop::drop'],
    ['<spanflame::model::Profile>::total', 'Profile::total'],
    ['net/http.(*conn).serve', 'http.(*conn).serve'],
    ['runtime.mallocgc', 'runtime.mallocgc'],
    ['github.com/a/b/pkg.Func', 'pkg.Func'],
    ['java.util.concurrent.ThreadPoolExecutor.runWorker', 'ThreadPoolExecutor.runWorker'],
    ['main', 'main'],
    ['java/lang/Object.wait', 'Object.wait'],
    ['LazyCompile:~loop /app/x.js 12', 'LazyCompile:~loop /app/x.js 12'],
    ['[libc.so.6+0x1f]', '[libc.so.6+0x1f]'],
    ['operator new(unsigned long)', 'operator new(unsigned long)'],
    ['<>', '<>'],
    ['', ''],
    ['f<a->b>::g', 'f::g'],
    ['(anonymous namespace)::f(int)', 'f'],
  ])('%s', (name, short) => {
    expect(shortName(name)).toBe(short);
  });
});

describe('paths of nodes', () => {
  test('lead to the same node in another graph, and nowhere else', () => {
    const one = graphOf('m;a;x 1', 'm;b;x 2');
    const other = graphOf('a;x 5', 'm;b;q 7', 'm;b;x 9', 'n;b;x 1');
    const x = nodeNamed(one, 'b') + 1;
    expect(nodePath(one, x)).toMatch(/^[0-9a-f]{16}$/);
    const found = nodeOfPath(other, nodePath(one, x));
    expect([found, other.self[found]]).toEqual([nodeNamed(other, 'q') + 1, 9]);
    expect(nodeOfPath(other, nodePath(one, nodeNamed(one, 'x')))).toBe(0);
    for (const path of ['', 'zz', '0123456789abcdef', '../../x']) expect(nodeOfPath(one, path)).toBe(0);
  });

  test('are all different in a large tree', () => {
    const graph = graphOf(...Array.from({ length: 4_000 }, (_, index) => `m;f${index % 61};g${index % 977};h${index} 1`));
    const paths = new Set(Array.from({ length: graph.nodeCount }, (_, node) => nodePath(graph, node)));
    expect(paths.size).toBe(graph.nodeCount);
    expect(nodeOfPath(graph, nodePath(graph, graph.nodeCount - 1))).toBe(graph.nodeCount - 1);
  });
});

describe('the state in the URL', () => {
  test('comes back as it was, signs and all', () => {
    const state = { ...DEFAULT_STATE, search: '/a&b#=é+ /', zoom: '0123456789abcdef', direction: 'flame', order: 'name' } as const;
    expect(parseState(formatState(state))).toEqual(state);
    expect(formatState(DEFAULT_STATE)).toBe('#');
    expect(parseState('')).toEqual(DEFAULT_STATE);
  });

  test('nonsense is ignored', () => {
    expect(parseState('#view=evil&direction=up&mode=&order=x&source=&unknown=1')).toEqual(DEFAULT_STATE);
  });
});

describe('details', () => {
  const graph = graphOf('m;a;x 20', 'm;a 10', 'm;b 40', 'z 30');
  const measure = { kind: 'cpu', unit: 'nanoseconds' };

  test('shares are of everything and of the zoomed frame', () => {
    const a = nodeNamed(graph, 'a');
    const details = detailsOf(graph, a, nodeNamed(graph, 'm'), measure);
    expect(details).toMatchObject({ name: 'a', total: '30 ns', self: '10 ns', totalOfAll: '30.0 %', selfOfAll: '10.0 %' });
    expect(details.totalOfZoom).toBe('42.9 %');
    expect(detailsOf(graph, a, 0, measure).totalOfZoom).toBe('');
    expect(detailsOf(graph, nodeNamed(graph, 'z'), nodeNamed(graph, 'm'), measure).totalOfZoom).toBe('');
  });

  test('a comparison says before, after and both changes', () => {
    const both = diff(graphOf('a 10', 'b 10'), graphOf('a 30', 'b 10'), 'share');
    const { change } = detailsOf(both.graph, nodeNamed(both.graph, 'a'), 0, measure, both);
    expect(change).toEqual([
      ['A, baseline', '10 ns (50.0 %)'],
      ['B', '30 ns (75.0 %)'],
      ['change', '+20 ns'],
      ['change of share', '+25.0 points'],
      ['relative, by share', '+50.0 %'],
    ]);
    const [, item] = treeItems(both.graph, nodeNamed(both.graph, 'a'), 0, measure, both);
    expect(item!.label).toBe('a, 75.0 % of all, 30 ns, +50.0 % relative, by share');
  });

  test('the tree for screen readers is the path and the callees, widest first', () => {
    const items = treeItems(graph, nodeNamed(graph, 'm'), 0, measure);
    expect(items.map((item) => [item.label.split(',')[0], item.level, item.position, item.setSize])).toEqual([
      ['all', 1, 1, 1],
      ['m', 2, 1, 2],
      ['b', 3, 1, 2],
      ['a', 3, 2, 2],
    ]);
    expect(items.map((item) => [item.selected, item.expanded])).toEqual([
      [false, true],
      [true, true],
      [false, undefined],
      [false, false],
    ]);
    expect(items[2]!.label).toBe('b, 40.0 % of all, 40 ns');
  });
});

describe('colours', () => {
  test('are the same for a name, differ by sort and theme, and grey has no hue', () => {
    const frame = frameOf('f');
    expect(frameColour(frame, 'light')).toBe(frameColour({ ...frame }, 'light'));
    expect(frameColour(frame, 'light')).not.toBe(frameColour(frame, 'dark'));
    expect(frameColour(frame, 'light')).not.toBe(frameColour(frameOf('f_[k]'), 'light'));
    expect(frameColour({ ...frame, unnamed: true }, 'light')).toMatch(/^hsl\(220 \d(\.\d)?% /);
    expect(frameColour({ ...frame, frameClass: FrameClass.Kernel, unnamed: true }, 'light')).toMatch(/^hsl\(2[67]/);
  });

  test('what grew is red, what shrank is blue, what stayed is grey', () => {
    expect(changeColour(0.5, 'light')).toMatch(/^hsl\(8 /);
    expect(changeColour(-0.5, 'dark')).toMatch(/^hsl\(214 /);
    expect(changeColour(0.001, 'light')).toBe(changeColour(0, 'light'));
  });
});
