import { describe, expect, test } from 'vitest';

import { commandOf } from './keyboard';
import { graphOf, nameOf, nodeNamed } from './testgraphs';
import { depthAt, layoutOf, neighbour, nodeAtPoint, rowTop, scrollToRow, type Step } from './view';

const graph = graphOf('m;a;x 20', 'm;a 10', 'm;b;y;deep 40', 'z 30');
const node = (name: string): number => nodeNamed(graph, name);

describe('layout', () => {
  test('the root is at the top of an icicle and at the bottom of a flame', () => {
    const icicle = layoutOf(graph, 0, 'icicle', 100, 300, 20);
    const flame = layoutOf(graph, 0, 'flame', 100, 300, 20);
    expect([rowTop(icicle, 0), rowTop(flame, 0), rowTop(flame, 4)]).toEqual([0, 280, 200]);
    for (const layout of [icicle, flame]) {
      for (let depth = 0; depth < 5; depth++) {
        expect(depthAt(layout, rowTop(layout, depth))).toBe(depth);
        expect(depthAt(layout, rowTop(layout, depth) + 19)).toBe(depth);
      }
    }
  });

  test('zoomed, only its own rows count, and it is as wide as the canvas', () => {
    const layout = layoutOf(graph, node('a'), 'icicle', 300, 40, 20);
    expect(layout.contentPx).toBe(80);
    expect(layout.window).toEqual({ from: 0, to: 30, widthPx: 300 });
    expect(nodeAtPoint(graph, layout, 150, 10)).toBe(0);
    expect(nodeAtPoint(graph, layout, 150, 50)).toBe(node('a'));
    expect(nodeAtPoint(graph, layout, 199, 70)).toBe(node('x'));
    expect(nodeAtPoint(graph, layout, 201, 70)).toBe(-1);
    expect(nodeAtPoint(graph, layout, 300, 10)).toBe(-1);
    expect(nodeAtPoint(graph, layout, 10, 500)).toBe(-1);
  });

  test('scrolling brings a row into sight and otherwise leaves things where they are', () => {
    const layout = layoutOf(graph, 0, 'icicle', 100, 40, 20);
    expect(scrollToRow(layout, 1, 0, 40)).toBe(0);
    expect(scrollToRow(layout, 3, 0, 40)).toBe(60);
    expect(scrollToRow(layout, 4, 0, 40)).toBe(60);
    expect(scrollToRow(layout, 0, 60, 40)).toBe(0);
  });
});

describe('steps', () => {
  const walk = (from: string, step: Step, zoom = 0): string => nameOf(graph, neighbour(graph, node(from), zoom, step));

  test('lead to the caller, the widest callee and the neighbours of the row', () => {
    expect(walk('x', 'caller')).toBe('a');
    expect(walk('all', 'caller')).toBe('all');
    expect(walk('m', 'callee')).toBe('b');
    expect(walk('deep', 'callee')).toBe('deep');
    expect(walk('a', 'right')).toBe('b');
    expect(walk('x', 'right')).toBe('y');
    expect(walk('b', 'left')).toBe('a');
    expect(walk('m', 'left')).toBe('m');
    expect(walk('z', 'right')).toBe('z');
  });

  test('stay inside the zoomed frame sideways, and on the way to it downwards', () => {
    expect(walk('x', 'right', node('a'))).toBe('x');
    expect(walk('m', 'right', node('a'))).toBe('m');
    expect(walk('m', 'callee', node('a'))).toBe('a');
    expect(walk('a', 'callee', node('a'))).toBe('x');
  });
});

describe('keys', () => {
  const plain = { ctrlKey: false, metaKey: false, altKey: false };

  test('arrows follow the direction of the graph', () => {
    expect(commandOf({ ...plain, key: 'ArrowDown' }, 'icicle')).toEqual({ do: 'move', step: 'callee' });
    expect(commandOf({ ...plain, key: 'ArrowDown' }, 'flame')).toEqual({ do: 'move', step: 'caller' });
    expect(commandOf({ ...plain, key: 'ArrowUp' }, 'flame')).toEqual({ do: 'move', step: 'callee' });
  });

  test('with a modifier they belong to the browser', () => {
    expect(commandOf({ ...plain, key: 'f', ctrlKey: true }, 'icicle')).toBeUndefined();
    expect(commandOf({ ...plain, key: 'ArrowLeft', altKey: true }, 'icicle')).toBeUndefined();
    expect(commandOf({ ...plain, key: 'Tab' }, 'icicle')).toBeUndefined();
  });
});
