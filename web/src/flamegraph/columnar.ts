// Reads the columnar flame graph that the server sends (format version 1). The layout is written down in
// `src/export/columnar.rs`, and repeated here as far as this reader relies on it:
//
// - little endian; a varint is an unsigned LEB128 number of at most ten bytes;
// - a header of 64 bytes: "SFCG", u16 version, u16 0, u64 total, u64 samples, u64 start in Unix
//   nanoseconds, u64 length in nanoseconds, then u32: string of the value's kind, string of its unit,
//   number of strings, of frames, of nodes, and 0;
// - eleven columns, each a u32 length and that many bytes: string lengths (varint), string bytes; of
//   frames the sort (u8, 0x80 added if the name is only an address), then varints: name, file, line,
//   module, build id; of nodes varints: steps up from the node before to this node's parent, frame, self.
//
// The bytes may come from anywhere. Every row of a column takes at least one byte, so a count is checked
// against the column's length before anything is reserved: memory stays within some 50 times the file,
// and time is linear in it. Numbers above 2^53 are rounded, as JavaScript has them.

import { FlameGraph, FrameClass, MAX_DEPTH, type Frame } from './graph';

export interface ColumnarFile {
  readonly graph: FlameGraph;
  /** What is measured (`cpu`). */
  readonly kind: string;
  /** Its unit (`nanoseconds`). */
  readonly unit: string;
  /** How many samples there are, 0 if that is not known. */
  readonly samples: number;
  /** Milliseconds since the Unix epoch, 0 if unknown. */
  readonly startUnixMs: number;
  readonly durationNs: number;
}

/** The bytes are no columnar file, or a broken one. */
export class ColumnarError extends Error {
  override readonly name = 'ColumnarError';
}

const HEADER_BYTES = 64;
const VERSION = 1;
const UNNAMED = 0x80;
const COLUMNS = [
  'string lengths',
  'strings',
  'frame sorts',
  'frame names',
  'frame files',
  'frame lines',
  'frame modules',
  'frame build ids',
  'node steps',
  'node frames',
  'node values',
] as const;

/** One column, read from its beginning to its end. */
class Column {
  private at = 0;

  constructor(
    readonly bytes: Uint8Array,
    private readonly label: string,
  ) {}

  /** Fails unless `rows` rows can be in here at all. */
  expectRoomFor(rows: number): void {
    if (rows > this.bytes.length) throw this.error(`${rows} rows in ${this.bytes.length} bytes`);
  }

  byte(): number {
    const byte = this.bytes[this.at];
    if (byte === undefined) throw this.error('ends too early');
    this.at++;
    return byte;
  }

  varint(): number {
    const first = this.byte();
    if (first < 0x80) return first;
    let number = first & 0x7f;
    let scale = 0x80;
    for (let bytes = 1; bytes < 10; bytes++) {
      const byte = this.byte();
      number += (byte & 0x7f) * scale;
      if (byte < 0x80) return number;
      scale *= 0x80;
    }
    throw this.error('a number does not end');
  }

  /** Where it stands, for loops that read the bytes by themselves. */
  get position(): number {
    return this.at;
  }

  seek(position: number): void {
    this.at = position;
  }

  expectEnd(): void {
    if (this.at !== this.bytes.length) throw this.error(`${this.bytes.length - this.at} bytes too many`);
  }

  error(what: string): ColumnarError {
    return new ColumnarError(`broken flame graph: ${this.label}: ${what}`);
  }
}

/** @throws {ColumnarError} if the bytes are not a sound columnar file of a known version. */
export function decodeColumnar(bytes: Uint8Array): ColumnarFile {
  if (bytes.length < HEADER_BYTES) throw new ColumnarError(`not a flame graph: ${bytes.length} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0) !== 0x53464347) throw new ColumnarError('not a flame graph: the magic number is missing');
  const version = view.getUint16(4, true);
  if (version !== VERSION) {
    throw new ColumnarError(`a flame graph of version ${version}, and this page reads ${VERSION}: reload the page`);
  }
  if (view.getUint16(6, true) !== 0 || view.getUint32(60, true) !== 0) {
    throw new ColumnarError('broken flame graph: header: reserved fields are set');
  }
  const u64 = (offset: number): number => view.getUint32(offset, true) + view.getUint32(offset + 4, true) * 2 ** 32;
  const [kindString, unitString, stringCount, frameCount, nodeCount] = [40, 44, 48, 52, 56].map((offset) =>
    view.getUint32(offset, true),
  ) as [number, number, number, number, number];
  if (nodeCount === 0 || frameCount === 0) throw new ColumnarError('broken flame graph: header: no root');

  let at = HEADER_BYTES;
  const columns = COLUMNS.map((label) => {
    if (at + 4 > bytes.length) throw new ColumnarError(`broken flame graph: ${label}: missing`);
    const length = view.getUint32(at, true);
    at += 4;
    if (length > bytes.length - at) throw new ColumnarError(`broken flame graph: ${label}: cut off`);
    const column = new Column(bytes.subarray(at, at + length), label);
    at += length;
    return column;
  });
  if (at !== bytes.length) throw new ColumnarError(`broken flame graph: ${bytes.length - at} bytes after the end`);
  const [lengths, texts, sorts, names, files, lines, modules, buildIds, steps, nodeFrames, values] = columns as [
    Column,
    Column,
    Column,
    Column,
    Column,
    Column,
    Column,
    Column,
    Column,
    Column,
    Column,
  ];

  lengths.expectRoomFor(stringCount);
  const strings = readStrings(lengths, texts.bytes, stringCount);
  const stringAt = (index: number, column: Column): string => {
    const text = strings[index];
    if (text === undefined) throw column.error(`string ${index}, but there are only ${strings.length}`);
    return text;
  };

  sorts.expectRoomFor(frameCount);
  const frames: Frame[] = [];
  for (let row = 0; row < frameCount; row++) {
    const sort = sorts.byte();
    const frameClass = sort & ~UNNAMED;
    if (frameClass > FrameClass.Incomplete || (frameClass === FrameClass.Root) !== (row === 0)) {
      throw sorts.error(`frame ${row} is of sort ${frameClass}`);
    }
    const name = stringAt(names.varint(), names);
    frames.push({
      name: row === 0 ? 'all' : name,
      frameClass: frameClass as FrameClass,
      unnamed: sort >= UNNAMED,
      file: stringAt(files.varint(), files),
      line: lines.varint(),
      module: stringAt(modules.varint(), modules),
      buildId: stringAt(buildIds.varint(), buildIds),
    });
  }

  steps.expectRoomFor(nodeCount);
  nodeFrames.expectRoomFor(nodeCount);
  values.expectRoomFor(nodeCount);
  const depth = new Uint16Array(nodeCount);
  const frame = new Uint32Array(nodeCount);
  const self = new Float64Array(nodeCount);
  readDepths(steps, depth);
  readNodeFrames(nodeFrames, frame, frameCount);
  const sum = readValues(values, self);
  for (const column of columns) {
    if (column !== texts) column.expectEnd();
  }
  const total = u64(8);
  if (total <= Number.MAX_SAFE_INTEGER && sum !== total) {
    throw values.error(`they come to ${sum}, and the header says ${total}`);
  }

  return {
    graph: new FlameGraph(frames, frame, depth, self),
    kind: stringAt(kindString, lengths),
    unit: stringAt(unitString, lengths),
    samples: u64(16),
    startUnixMs: u64(24) / 1e6,
    durationNs: u64(32),
  };
}

// The three columns of nodes are read by loops of their own, one number after the other out of an array: a
// million calls a column would take longer than all the rest. Beyond the end of a column `byte` is
// `undefined`, which is not below 0x80, so that the slow way finds it.

function readDepths(column: Column, depth: Uint16Array): void {
  const { bytes } = column;
  let at = 0;
  let before = -1;
  for (let node = 0; node < depth.length; node++) {
    let steps = bytes[at]!;
    if (steps < 0x80) {
      at++;
    } else {
      column.seek(at);
      steps = column.varint();
      at = column.position;
    }
    const d = before + 1 - steps;
    if (d > MAX_DEPTH) throw column.error(`node ${node} is deeper than ${MAX_DEPTH}`);
    if (node === 0 ? d !== 0 : d < 1) throw column.error(`node ${node} is beside the root`);
    depth[node] = d;
    before = d;
  }
  column.seek(at);
}

function readNodeFrames(column: Column, frame: Uint32Array, frameCount: number): void {
  const { bytes } = column;
  let at = 0;
  for (let node = 0; node < frame.length; node++) {
    let number = bytes[at]!;
    if (number < 0x80) {
      at++;
    } else if (bytes[at + 1]! < 0x80) {
      number = (number & 0x7f) | (bytes[at + 1]! << 7);
      at += 2;
    } else {
      column.seek(at);
      number = column.varint();
      at = column.position;
    }
    // The root has the first frame, and no other node has it.
    if (number >= frameCount) throw column.error(`${number}, but there are only ${frameCount}`);
    if ((number === 0) !== (node === 0)) throw column.error(`node ${node} has frame ${number}`);
    frame[node] = number;
  }
  column.seek(at);
}

/** Returns the sum. */
function readValues(column: Column, self: Float64Array): number {
  const { bytes } = column;
  // A loop that has once read beyond the end of an array is compiled to expect it, and stays slow. Up to here
  // four bytes can be read without a look.
  const lastWhole = bytes.length - 4;
  let at = 0;
  let sum = 0;
  for (let node = 0; node < self.length; node++) {
    let number = 0x80;
    if (at <= lastWhole) {
      // Up to 28 bits without leaving small integers: some 0.27 s of nanoseconds.
      const first = bytes[at]!;
      const second = bytes[at + 1]!;
      const third = bytes[at + 2]!;
      const fourth = bytes[at + 3]!;
      if (first < 0x80) {
        self[node] = first;
        sum += first;
        at++;
        continue;
      }
      if (second < 0x80) {
        number = (first & 0x7f) | (second << 7);
        self[node] = number;
        sum += number;
        at += 2;
        continue;
      }
      if (third < 0x80) {
        number = (first & 0x7f) | ((second & 0x7f) << 7) | (third << 14);
        self[node] = number;
        sum += number;
        at += 3;
        continue;
      }
      if (fourth < 0x80) {
        number = (first & 0x7f) | ((second & 0x7f) << 7) | ((third & 0x7f) << 14) | (fourth << 21);
        self[node] = number;
        sum += number;
        at += 4;
        continue;
      }
    }
    column.seek(at);
    number = column.varint();
    at = column.position;
    self[node] = number;
    sum += number;
  }
  column.seek(at);
  return sum;
}

function readStrings(lengths: Column, bytes: Uint8Array, count: number): string[] {
  // Names of functions are rarely anything but ASCII, and a call for each of ten thousands takes longer
  // than all nodes: one call decodes the lot, a byte a character, and strings are cut out of that. Bytes
  // that are no UTF-8 must not stop the reader: they show as U+FFFD.
  const whole = new TextDecoder('latin1').decode(bytes);
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  const strings: string[] = [];
  let at = 0;
  for (let row = 0; row < count; row++) {
    const length = lengths.varint();
    if (length > bytes.length - at) throw lengths.error(`string ${row} is cut off`);
    const after = at + length;
    let seen = 0;
    for (let byte = at; byte < after; byte++) seen |= bytes[byte]!;
    strings.push(seen < 0x80 ? whole.slice(at, after) : decoder.decode(bytes.subarray(at, after)));
    at = after;
  }
  if (at !== bytes.length) throw lengths.error(`${bytes.length - at} bytes belong to no string`);
  return strings;
}
