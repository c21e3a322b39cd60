import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';

import { ColumnarError, decodeColumnar } from './columnar';
import { detailsOf } from './details';
import { FrameClass, buildGraph, childrenOf, type FlameGraph } from './graph';
import { encodeForTest, frameOf, randomNumbers } from './testgraphs';

interface JsonNode {
  readonly name: string;
  readonly self: number;
  readonly total: number;
  readonly children: readonly JsonNode[];
}

// Written by `cargo test --test columnar_files`.
const NAMES = ['empty', 'everything', 'smaller', 'recursive', 'large_values', 'deep', 'approximate'];
const testdata = (name: string): Uint8Array =>
  new Uint8Array(readFileSync(new URL(`../../testdata/${name}`, import.meta.url)));
const everything = testdata('everything.columnar');

/** Without recursion: one of the files is 3,000 frames deep. */
function expectSame(graph: FlameGraph, json: JsonNode): void {
  const waiting: [number, JsonNode][] = [[0, json]];
  let compared = 0;
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const [node, expected] = next;
    const name = graph.frames[graph.frame[node]!]!.name;
    expect([name, graph.self[node], graph.total[node]]).toEqual([expected.name, expected.self, expected.total]);
    const children = childrenOf(graph, node);
    expect(children.length).toBe(expected.children.length);
    children.forEach((child, index) => waiting.push([child, expected.children[index]!]));
    compared++;
  }
  expect(compared).toBe(graph.nodeCount);
}

describe('files that the server writes', () => {
  test.each(NAMES)('%s is the tree that its JSON says', (name) => {
    const { graph } = decodeColumnar(testdata(`${name}.columnar`));
    const json = JSON.parse(new TextDecoder().decode(testdata(`${name}.json`))) as JsonNode;
    expectSame(graph, json);
  });

  test('carry what was measured, and the frames as the server knows them', () => {
    const file = decodeColumnar(everything);
    expect([file.kind, file.unit, file.samples]).toEqual(['cpu', 'nanoseconds', 117]);
    expect([file.startUnixMs, file.durationNs]).toEqual([1_700_000_000_000, 10e9]);
    const named = (name: string) => file.graph.frames.find((frame) => frame.name === name);
    expect(named('burn::<[u8; 8]>')).toMatchObject({
      frameClass: FrameClass.Native,
      file: '/src/burn.rs',
      line: 20,
      module: '/usr/bin/burn',
      buildId: '0123456789abcdef0123456789abcdef01234567',
      unnamed: false,
    });
    expect(named('inner')?.frameClass).toBe(FrameClass.Inlined);
    expect(named('do_syscall_64')?.frameClass).toBe(FrameClass.Kernel);
    expect(named('LazyCompile:~loop /app/x.js 12')?.frameClass).toBe(FrameClass.Jit);
    expect(named('[libstripped.so.1+0x20042]')).toMatchObject({ frameClass: FrameClass.Native, unnamed: true });
    expect(named('Web Content')).toMatchObject({ frameClass: FrameClass.Label, module: 'comm' });
    expect(named('[incomplete: truncated]')).toMatchObject({
      frameClass: FrameClass.Incomplete,
      module: 'The stack is deeper than the frame limit.',
    });
  });

  test('what is known by the nearest record alone says so, and is of its sort all the same', () => {
    const { graph } = decodeColumnar(testdata('approximate.columnar'));
    const shown = graph.frames.filter(({ frameClass }) => frameClass === FrameClass.Inlined);
    const marked = Object.fromEntries(shown.map(({ name, approximate }) => [name, approximate]));
    expect(marked).toEqual({ order: true, price: true, tax: false });
    const order = graph.frame.findIndex((frame) => graph.frames[frame]!.name === 'order');
    const details = detailsOf(graph, order, 0, { kind: 'cpu', unit: 'nanoseconds' });
    expect(details.sort).toBe('inlined, in part approximate');
    expect(details.note).toContain('the nearest place before');
  });

  test('stacks that are too small to be drawn stand below what they have in common with greater ones', () => {
    const { graph } = decodeColumnar(testdata('smaller.columnar'));
    const smaller = graph.frames.find((frame) => frame.frameClass === FrameClass.Smaller);
    expect(smaller?.name).toBe('[smaller]');
    expect(smaller?.module).toContain('too small to be drawn');
    expect(graph.total[0]).toBe(decodeColumnar(testdata('recursive.columnar')).graph.total[0]);
  });

  test('values near 2^53 are exact', () => {
    const { graph } = decodeColumnar(testdata('large_values.columnar'));
    const node = graph.frame.findIndex((frame) => graph.frames[frame]!.name === 'a');
    expect(graph.self[node]).toBe(9_007_199_254_740_000);
  });
});

describe('numbers and texts of every length', () => {
  /** Side by side below the root, a frame and a value each. */
  function fileOf(frames: number[], values: number[]): Uint8Array {
    const table = Array.from({ length: Math.max(...frames) + 1 }, (_, row) => frameOf(`f${row}`));
    table[0] = { ...table[0]!, frameClass: FrameClass.Root };
    const depth = Uint16Array.from([0, ...frames], (_, node) => Math.min(node, 1));
    return encodeForTest(buildGraph(table, Uint32Array.from([0, ...frames]), depth, Float64Array.from([0, ...values])));
  }
  // 1 to 8 bytes, and what is just not longer.
  const edges = Array.from({ length: 7 }, (_, bytes) => [2 ** (7 * bytes + 7) - 1, 2 ** (7 * bytes + 7)]).flat();

  test.each([
    ['long ones', 1],
    ['long ones among short ones', 40],
    ['a long one, and the end', 0],
  ])('values: %s', (_, shortOnes) => {
    const values = edges.flatMap((edge) => [edge, ...Array<number>(shortOnes).fill(3)]);
    for (let length = 1; length <= values.length; length++) {
      const expected = [0, ...values.slice(0, length)];
      const { graph } = decodeColumnar(fileOf(Array<number>(length).fill(1), expected.slice(1)));
      expect([...graph.self]).toEqual(expected);
      expect(graph.total[0]).toBe(expected.reduce((sum, value) => sum + value));
    }
  });

  test('frames', () => {
    const frames = [1, 127, 128, 16_383, 16_384, 70_000, 1, 16_384, 5, 128];
    const { graph } = decodeColumnar(fileOf(frames, frames));
    expect([...graph.frame]).toEqual([0, ...frames]);
    expect(graph.frames[70_000]!.name).toBe('f70000');
  });

  test('a number that does not end is refused in the midst of others, too', () => {
    const sound = fileOf(Array<number>(40).fill(1), Array<number>(40).fill(2 ** 35));
    const at = sound.length - 6 * 20;
    sound.fill(0xff, at, at + 11);
    expect(() => decodeColumnar(sound)).toThrow(/node values: a number does not end/);
  });

  test('names in any script, and bytes that are none, each by itself', () => {
    const texts = ['main', 'größe', '最適化', 'x…', '𝒳', '\ufeffmark', 'plain again'];
    const utf8 = texts.map((text) => [...new TextEncoder().encode(text)]);
    expect(namesOf(utf8)).toEqual(texts);
    // Two halves of a letter at the edge of two names are not a letter of either.
    expect(namesOf([[0x61, 0xc3], [0xa9, 0x62]])).toEqual(['a\ufffd', '\ufffdb']);
    expect(namesOf([[0x61, 0xff], [0x62], [0x80]])).toEqual(['a\ufffd', 'b', '\ufffd']);
  });

  function namesOf(texts: number[][]): string[] {
    const rows = texts.map((_, row) => row + 1);
    const nothing = rows.map(() => 0);
    const strings = [[0, ...texts.map((text) => text.length)], texts.flat()];
    const frames = [[0, ...rows.map(() => 1)], [0, ...rows], ...Array.from({ length: 4 }, () => [0, ...nothing])];
    const bytes = fileOfColumns([...strings, ...frames, [0], [0], [0]], texts.length + 1, texts.length + 1, 0);
    return decodeColumnar(bytes).graph.frames.slice(1).map((frame) => frame.name);
  }
});

describe('bytes that nobody vouches for', () => {
  test('every shorter file is refused', () => {
    for (let length = 0; length < everything.length; length++) {
      expect(() => decodeColumnar(everything.subarray(0, length)), `${length} bytes`).toThrow(ColumnarError);
    }
    expect(() => decodeColumnar(Uint8Array.from([...everything, 0]))).toThrow(ColumnarError);
  });

  test('any byte may be anything: sound or refused, nothing else', () => {
    for (let at = 0; at < everything.length; at++) {
      for (const value of [0, 0x7f, 0x80, 0xff, everything[at]! ^ 1]) {
        const garbled = everything.slice();
        garbled[at] = value;
        soundOrRefused(garbled);
      }
    }
  });

  test('random bytes behind a sound header', () => {
    const random = randomNumbers(7);
    for (let round = 0; round < 2_000; round++) {
      const garbled = everything.slice();
      const from = 40 + Math.floor(random() * 200);
      for (let at = from; at < garbled.length; at++) garbled[at] = Math.floor(random() * 256);
      soundOrRefused(garbled);
    }
  });

  test('counts that no memory could hold are refused before anything is reserved', () => {
    for (const offset of [48, 52, 56]) {
      const huge = everything.slice();
      new DataView(huge.buffer).setUint32(offset, 0xffffffff, true);
      expect(() => decodeColumnar(huge)).toThrow(/rows in \d+ bytes/);
    }
  });

  test('a later version says what to do', () => {
    const later = everything.slice();
    later[4] = 2;
    expect(() => decodeColumnar(later)).toThrow(/version 2.*reload/);
  });

  test('a view into a larger buffer is read where it lies', () => {
    const larger = new Uint8Array(everything.length + 20).fill(0xee);
    larger.set(everything, 13);
    const { graph } = decodeColumnar(larger.subarray(13, 13 + everything.length));
    expect(graph.nodeCount).toBe(decodeColumnar(everything).graph.nodeCount);
  });

  test('a number without an end, a second root, a depth beyond the limit and a wrong sum are refused', () => {
    const node = (steps: number[], frames: number[], values: number[], total = 0): Uint8Array =>
      smallFile(steps, frames, values, total);
    expect(decodeColumnar(node([0, 0], [0, 1], [0, 5], 5)).graph.nodeCount).toBe(2);
    expect(() => decodeColumnar(node([0, 1], [0, 1], [0, 5], 5))).toThrow(/beside the root/);
    expect(() => decodeColumnar(node([0, 200], [0, 1], [0, 5], 5))).toThrow(ColumnarError);
    expect(() => decodeColumnar(node([1, 0], [0, 1], [0, 5], 5))).toThrow(/beside the root/);
    expect(() => decodeColumnar(node([0, 0], [0, 0], [0, 5], 5))).toThrow(/has frame 0/);
    expect(() => decodeColumnar(node([0, 0], [1, 1], [0, 5], 5))).toThrow(/has frame 1/);
    expect(() => decodeColumnar(node([0, 0], [0, 9], [0, 5], 5))).toThrow(/only 2/);
    expect(() => decodeColumnar(node([0, 0], [0, 1], [0, 5], 6))).toThrow(/come to 5/);
    const endless = Array<number>(11).fill(0xff);
    expect(() => decodeColumnar(node([0, 0], [0, 1], [0, ...endless], 5))).toThrow(/does not end/);
    const tooDeep = Array<number>(65_537).fill(0);
    const frames = tooDeep.map((_, index) => (index === 0 ? 0 : 1));
    expect(() => decodeColumnar(node(tooDeep, frames, tooDeep))).toThrow(/deeper than 65535/);
    const deepest = decodeColumnar(node(tooDeep.slice(1), frames.slice(0, -1), tooDeep.slice(1)));
    expect(deepest.graph.maxDepth).toBe(65_535);
  });
});

function soundOrRefused(bytes: Uint8Array): void {
  try {
    const { graph } = decodeColumnar(bytes);
    for (let node = 1; node < graph.nodeCount; node++) {
      if (graph.parent[node]! >= node || graph.end[node]! <= node) throw new Error(`node ${node} is unsound`);
    }
  } catch (error) {
    if (!(error instanceof ColumnarError)) throw error;
  }
}

/** A file with the frames `all` and `f`, and these node columns as they are. */
function smallFile(steps: number[], frames: number[], values: number[], total: number): Uint8Array {
  const columns = [[0, 1], [0x66], [0, 1], [0, 1], [0, 0], [0, 0], [0, 0], [0, 0], steps, frames, values];
  return fileOfColumns(columns, 2, 2, total);
}

function fileOfColumns(columns: number[][], strings: number, frames: number, total: number): Uint8Array {
  const header = new DataView(new ArrayBuffer(64));
  header.setUint32(0, 0x53464347);
  header.setUint16(4, 1, true);
  header.setBigUint64(8, BigInt(total), true);
  header.setUint32(48, strings, true);
  header.setUint32(52, frames, true);
  header.setUint32(56, columns[8]!.length, true);
  const bytes = [...new Uint8Array(header.buffer)];
  for (const column of columns) {
    const { length } = column;
    bytes.push(length & 0xff, (length >> 8) & 0xff, (length >> 16) & 0xff, length >>> 24);
    for (const byte of column) bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}
