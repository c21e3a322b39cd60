import { describe, expect, test } from 'vitest';

import { changeOf, diff } from './diff';
import { FrameClass, type FlameGraph, type Frame } from './graph';
import { TreeBuilder } from './merge';
import { foldedOf, frameOf, graphOf, nodeNamed } from './testgraphs';

const before = graphOf('m;a 30', 'm;gone 10', 'm;b 60');
const after = graphOf('m;a 90', 'm;new 20', 'm;b 90');

describe('the union of two trees', () => {
  test('absolute: widths are both sides together, and nothing of either is lost', () => {
    const both = diff(before, after, 'absolute');
    expect(foldedOf(both.graph)).toEqual(['m;a 120', 'm;b 150', 'm;gone 10', 'm;new 20']);
    expect([both.before[0], both.after[0]]).toEqual([100, 200]);
    const node = nodeNamed(both.graph, 'a');
    expect(changeOf(both, node)).toMatchObject({ before: 30, after: 90, absolute: 60, percent: 200, balance: 0.5 });
    expect(changeOf(both, node).points).toBeCloseTo(15);
  });

  test('by share: twice the load with equal shares is no change', () => {
    const both = diff(before, after, 'share');
    expect(both.graph.total[0]).toBeCloseTo(2000);
    const share = changeOf(both, nodeNamed(both.graph, 'b'));
    expect(share).toMatchObject({ before: 60, after: 90, absolute: 30 });
    expect(share.percent).toBeCloseTo(-25);
    const whole = changeOf(both, 0);
    expect([whole.percent, whole.balance, whole.points]).toEqual([0, 0, 0]);
  });

  test('what is new and what is gone say so', () => {
    const both = diff(before, after, 'share');
    expect(changeOf(both, nodeNamed(both.graph, 'new'))).toMatchObject({ percent: Infinity, balance: 1, before: 0 });
    expect(changeOf(both, nodeNamed(both.graph, 'gone'))).toMatchObject({ percent: -100, balance: -1, after: 0 });
  });

  test('frames are the same whatever their number, and other ones where the sort differs', () => {
    const turned = diff(graphOf('m;a 1', 'm;b 2'), graphOf('m;b 2', 'm;a 1'), 'absolute');
    expect(foldedOf(turned.graph)).toEqual(['m;a 2', 'm;b 4']);
    expect(diff(graphOf('a 1'), graphOf('a_[i] 1'), 'absolute').graph.nodeCount).toBe(3);
  });

  test('against nothing', () => {
    const nothing = graphOf(' 0');
    const fromNothing = diff(nothing, after, 'share');
    expect(changeOf(fromNothing, nodeNamed(fromNothing.graph, 'a')).percent).toBe(Infinity);
    expect(diff(nothing, nothing, 'share').graph.total[0]).toBe(0);
    expect(changeOf(diff(nothing, nothing, 'absolute'), 0)).toMatchObject({ percent: 0, balance: 0, points: 0 });
  });
});

test('two programs of the same sources are compared function by function, their libraries by name', () => {
  const of = (program: string, libc: string, value: number): FlameGraph => {
    const module = (name: string, path: string): Frame => ({ ...frameOf(name), module: path });
    const frames = [{ ...frameOf('all'), frameClass: FrameClass.Root, module: '' }, module('main', program), module('read', libc), module('read', program)];
    const builder = new TreeBuilder(frames);
    const main = builder.child(0, 1);
    builder.addSelf(builder.child(main, 2), value);
    builder.addSelf(builder.child(main, 3), 1);
    return builder.build().graph;
  };
  const both = diff(of('/a/orders', '/lib/libc.so.6', 3), of('/b/payments', '/usr/lib/libc.so.6', 5), 'absolute');
  expect(both.graph.nodeCount).toBe(4);
  expect([...both.before]).toEqual([4, 4, 3, 1]);
  expect([...both.after]).toEqual([6, 6, 5, 1]);
});
