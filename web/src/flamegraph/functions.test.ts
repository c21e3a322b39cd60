import { describe, expect, test } from 'vitest';

import { findFunction, functionKey, functionTotals, functionsOf, sandwich } from './functions';
import type { FlameGraph } from './graph';
import { foldedOf, graphOf, nameOf, randomGraph } from './testgraphs';

function idOf(graph: FlameGraph, name: string): number {
  return functionsOf(graph.frames).frameOf.findIndex((frame) => graph.frames[frame]!.name === name);
}

function figures(graph: FlameGraph, name: string): [number, number] {
  const { self, total } = functionTotals(graph);
  return [self[idOf(graph, name)]!, total[idOf(graph, name)]!];
}

describe('top table', () => {
  test('a function that calls itself, directly or not, is counted once', () => {
    const graph = graphOf('m;f;f;g;f 4', 'm;f;g 2', 'm;g;f 8', 'f 16');
    expect(figures(graph, 'f')).toEqual([28, 30]);
    expect(figures(graph, 'g')).toEqual([2, 14]);
    expect(figures(graph, 'm')).toEqual([0, 14]);
  });

  test('inlined and called it is the same function, shown as the called one', () => {
    const graph = graphOf('m;f_[i] 1', 'g;f 2');
    expect(figures(graph, 'f')).toEqual([3, 3]);
    const frame = graph.frames[functionsOf(graph.frames).frameOf[idOf(graph, 'f')]!]!;
    expect(frame.frameClass).toBe(1);
    expect(findFunction(graph.frames, functionKey(frame))).toBe(idOf(graph, 'f'));
    expect(findFunction(graph.frames, 'nobody')).toBe(-1);
  });
});

describe('sandwich', () => {
  const graph = graphOf('m;f;x 1', 'm;f 2', 'n;m;f;g;f;x 4', 'f 8', 'm;z 16');
  const { callers, callees } = sandwich(graph, idOf(graph, 'f'));

  test('callees are merged, a call of itself among them', () => {
    expect(nameOf(callees, 0)).toBe('f');
    expect(foldedOf(callees)).toEqual([' 10', 'g;f;x 4', 'x 1']);
  });

  test('callers lead from the function to the root', () => {
    expect(nameOf(callers, 0)).toBe('f');
    expect(foldedOf(callers)).toEqual([' 8', 'm 3', 'm;n 4']);
  });

  test('both have the total of the top table, for every function of a random tree', () => {
    const random = randomGraph(3_000, 5);
    const { total } = functionTotals(random);
    for (let id = 1; id < total.length; id += 97) {
      if (total[id] === 0) continue;
      const both = sandwich(random, id);
      expect(both.callers.total[0]).toBeCloseTo(total[id]!, 6);
      expect(both.callees.total[0]).toBeCloseTo(total[id]!, 6);
    }
  });
});
