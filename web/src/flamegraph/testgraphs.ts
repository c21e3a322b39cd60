// Graphs for tests, from text.

import { FrameClass, buildGraph, type FlameGraph, type Frame } from './graph';
import { TreeBuilder } from './merge';

export function frameOf(name: string): Frame {
  const frameClass = name.endsWith('_[k]')
    ? FrameClass.Kernel
    : name.endsWith('_[i]')
      ? FrameClass.Inlined
      : FrameClass.Native;
  return { name: name.replace(/_\[[ki]\]$/, ''), frameClass, unnamed: false, approximate: false, file: '', line: 0, module: '/bin/x', buildId: '' };
}

/** From folded stacks: `main;f;g 3`. */
export function graphOf(...lines: string[]): FlameGraph {
  const frames: Frame[] = [{ ...frameOf('all'), frameClass: FrameClass.Root }];
  const numbers = new Map<string, number>();
  const stacks = lines.map((line): [number[], number] => {
    const space = line.lastIndexOf(' ');
    const path = line.slice(0, space).split(';').filter((name) => name !== '');
    const numbered = path.map((name) => {
      let number = numbers.get(name);
      if (number === undefined) {
        number = frames.length;
        numbers.set(name, number);
        frames.push(frameOf(name));
      }
      return number;
    });
    return [numbered, Number(line.slice(space + 1))];
  });
  const builder = new TreeBuilder(frames);
  for (const [path, value] of stacks) {
    builder.addSelf(
      path.reduce((parent, frame) => builder.child(parent, frame), 0),
      value,
    );
  }
  return builder.build().graph;
}

/** Folded stacks of a graph, sorted: what two graphs are compared by. */
export function foldedOf(graph: FlameGraph): string[] {
  const lines: string[] = [];
  const path: string[] = [];
  for (let node = 0; node < graph.nodeCount; node++) {
    path.length = graph.depth[node]!;
    path.push(graph.frames[graph.frame[node]!]!.name);
    if (graph.self[node]! > 0) lines.push(`${path.slice(1).join(';')} ${graph.self[node]!}`);
  }
  return lines.sort();
}

/** The first node of this name, depth first. */
export function nodeNamed(graph: FlameGraph, name: string): number {
  const node = graph.frame.findIndex((frame) => graph.frames[frame]!.name === name);
  if (node < 0) throw new Error(`no node ${name}`);
  return node;
}

export function nameOf(graph: FlameGraph, node: number): string {
  return graph.frames[graph.frame[node]!]!.name;
}

/** A random tree of so many nodes, the same for the same seed; values are multiples of `unit`. */
export function randomGraph(nodeCount: number, seed: number, unit = 1): FlameGraph {
  const random = randomNumbers(seed);
  const frames: Frame[] = [{ ...frameOf('all'), frameClass: FrameClass.Root }];
  for (let frame = 1; frame < 20_000; frame++) frames.push(frameOf(`module::Type::function_${frame}`));
  const frame = new Uint32Array(nodeCount);
  const depth = new Uint16Array(nodeCount);
  const self = new Float64Array(nodeCount);
  let before = 0;
  for (let node = 1; node < nodeCount; node++) {
    // Down more often than up, and rarely up by much: stacks of some dozens of frames.
    const up = random() < 0.5 ? 0 : 1 + Math.floor(-Math.log(1 - random()) * 1.3);
    before = Math.max(1, Math.min(60, before + 1 - up));
    depth[node] = before;
    frame[node] = 1 + Math.floor(random() * random() * (frames.length - 1));
    self[node] = random() < 0.4 ? unit * Math.ceil(1 / (random() + 1e-4)) : 0;
  }
  return buildGraph(frames, frame, depth, self);
}

/** Numbers from 0 to 1 (Mulberry32). */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The columnar file of a graph; a writer of its own, for graphs too large to be kept as files. */
export function encodeForTest(graph: FlameGraph): Uint8Array {
  const strings = new Map<string, number>([['', 0]]);
  const stringOf = (text: string): number => {
    const known = strings.get(text);
    if (known !== undefined) return known;
    strings.set(text, strings.size);
    return strings.size - 1;
  };
  const columns = Array.from({ length: 11 }, () => new GrowingBytes());
  const put = (column: number, number: number): void => columns[column]!.varint(number);
  graph.frames.forEach((frame, row) => {
    put(2, frame.frameClass);
    put(3, row === 0 ? 0 : stringOf(frame.name));
    put(4, stringOf(frame.file));
    put(5, frame.line);
    put(6, stringOf(frame.module));
    put(7, stringOf(frame.buildId));
  });
  for (let node = 0; node < graph.nodeCount; node++) {
    put(8, node === 0 ? 0 : graph.depth[node - 1]! + 1 - graph.depth[node]!);
    put(9, graph.frame[node]!);
    put(10, graph.self[node]!);
  }
  for (const text of strings.keys()) {
    const encoded = new TextEncoder().encode(text);
    put(0, encoded.length);
    columns[1]!.append(encoded);
  }
  const header = new DataView(new ArrayBuffer(64));
  header.setUint32(0, 0x53464347);
  header.setUint16(4, 1, true);
  header.setBigUint64(8, BigInt(graph.total[0]!), true);
  header.setUint32(48, strings.size, true);
  header.setUint32(52, graph.frames.length, true);
  header.setUint32(56, graph.nodeCount, true);
  const file = new GrowingBytes();
  file.append(new Uint8Array(header.buffer));
  for (const column of columns) {
    const bytes = column.bytes();
    file.append(new Uint8Array(Uint32Array.of(bytes.length).buffer));
    file.append(bytes);
  }
  return file.bytes();
}

class GrowingBytes {
  private buffer = new Uint8Array(1024);
  private length = 0;

  append(bytes: Uint8Array): void {
    while (this.length + bytes.length > this.buffer.length) {
      const larger = new Uint8Array(this.buffer.length * 2);
      larger.set(this.buffer);
      this.buffer = larger;
    }
    this.buffer.set(bytes, this.length);
    this.length += bytes.length;
  }

  varint(number: number): void {
    const bytes: number[] = [];
    let rest = number;
    for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) | 0x80);
    bytes.push(rest);
    this.append(Uint8Array.from(bytes));
  }

  bytes(): Uint8Array {
    return this.buffer.subarray(0, this.length);
  }
}
