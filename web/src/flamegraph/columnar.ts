// Reads the columnar flame graph that the server sends (format version 1). The layout is written down in
// `src/export/columnar.rs`, and repeated here as far as this reader relies on it:
//
// - little endian; a varint is an unsigned LEB128 number of at most ten bytes;
// - a header of 64 bytes: "SFCG", u16 version, u16 0, u64 total, u64 samples, u64 start in Unix
//   nanoseconds, u64 length in nanoseconds, then u32: string of the value's kind, string of its unit,
//   number of strings, of frames, of nodes, and 0;
// - eleven columns, each a u32 length and that many bytes: string lengths (varint), string bytes; of
//   frames the sort (u8, 0x80 added if the name is only an address, 0x40 if it is approximate), then varints:
//   name, file, line, module, build id; of nodes varints: steps up from the node before to this node's parent, frame, self.
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
const APPROXIMATE = 0x40;
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
    const { bytes } = this;
    let number = 0;
    let scale = 1;
    for (let length = 0; length < 10; length++) {
      const byte = bytes[this.at];
      if (byte === undefined) throw this.error('ends too early');
      this.at++;
      number += (byte & 0x7f) * scale;
      if (byte < 0x80) return number;
      scale *= 0x80;
    }
    throw this.error('a number does not end');
  }

  /**
   * All of it, as so many numbers. The first graph of a page is read by code that no compiler has seen yet: one
   * loop that all columns go through is compiled soon, calls from row to row are not.
   */
  varints(rows: number): Float64Array {
    this.expectRoomFor(rows);
    const { bytes } = this;
    const numbers = new Float64Array(rows);
    for (let row = 0; row < rows; row++) {
      const byte = bytes[this.at];
      if (byte !== undefined && byte < 0x80) {
        numbers[row] = byte;
        this.at++;
      } else {
        numbers[row] = this.varint();
      }
    }
    return numbers;
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

  const strings = readStrings(lengths, texts.bytes, stringCount);
  const missing = (index: number, column: Column): never => {
    throw column.error(`string ${index}, but there are only ${strings.length}`);
  };

  sorts.expectRoomFor(frameCount);
  const [nameOf, fileOf, lineOf, moduleOf, buildIdOf] = [names, files, lines, modules, buildIds].map((column) =>
    column.varints(frameCount),
  ) as [Float64Array, Float64Array, Float64Array, Float64Array, Float64Array];
  const frames: Frame[] = [];
  for (let row = 0; row < frameCount; row++) {
    const sort = sorts.byte();
    const frameClass = sort & ~(UNNAMED | APPROXIMATE);
    if (frameClass > FrameClass.Smaller || (frameClass === FrameClass.Root) !== (row === 0)) {
      throw sorts.error(`frame ${row} is of sort ${frameClass}`);
    }
    const name = strings[nameOf[row]!] ?? missing(nameOf[row]!, names);
    frames.push({
      name: row === 0 ? 'all' : name,
      frameClass: frameClass as FrameClass,
      unnamed: (sort & UNNAMED) !== 0,
      approximate: (sort & APPROXIMATE) !== 0,
      file: strings[fileOf[row]!] ?? missing(fileOf[row]!, files),
      line: lineOf[row]!,
      module: strings[moduleOf[row]!] ?? missing(moduleOf[row]!, modules),
      buildId: strings[buildIdOf[row]!] ?? missing(buildIdOf[row]!, buildIds),
    });
  }

  steps.expectRoomFor(nodeCount);
  nodeFrames.expectRoomFor(nodeCount);
  values.expectRoomFor(nodeCount);
  const depth = new Uint16Array(nodeCount);
  const frame = new Uint32Array(nodeCount);
  const self = new Float64Array(nodeCount);
  const maxDepth = readDepths(steps, depth);
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
    graph: new FlameGraph(frames, frame, depth, self, maxDepth),
    kind: strings[kindString] ?? missing(kindString, lengths),
    unit: strings[unitString] ?? missing(unitString, lengths),
    samples: u64(16),
    startUnixMs: u64(24) / 1e6,
    durationNs: u64(32),
  };
}

// The three columns of nodes are read by loops of their own, in which nothing is called as long as numbers are
// short and the end is far: a million calls a column would take longer than all the rest, and around a call
// nothing stays in registers. What they do not read themselves, `varint` reads or refuses.

/** Returns the greatest depth. */
function readDepths(column: Column, depth: Uint16Array): number {
  const { bytes } = column;
  let at = 0;
  let before = -1;
  let maxDepth = 0;
  for (let node = 0; node < depth.length; node++) {
    // Beyond the end it is `undefined`, which is not below 0x80.
    let steps = bytes[at]!;
    if (steps < 0x80) {
      at++;
    } else {
      column.seek(at);
      steps = column.varint();
      at = column.position;
    }
    const d = before + 1 - steps;
    if (d > maxDepth) {
      if (d > MAX_DEPTH) throw column.error(`node ${node} is deeper than ${MAX_DEPTH}`);
      maxDepth = d;
    }
    if (node === 0 ? d !== 0 : d < 1) throw column.error(`node ${node} is beside the root`);
    depth[node] = d;
    before = d;
  }
  column.seek(at);
  return maxDepth;
}

function readNodeFrames(column: Column, frame: Uint32Array, frameCount: number): void {
  const { bytes } = column;
  const check = (number: number, node: number): void => {
    // The root has the first frame, and no other node has it.
    if (number >= frameCount) throw column.error(`${number}, but there are only ${frameCount}`);
    if ((number === 0) !== (node === 0)) throw column.error(`node ${node} has frame ${number}`);
  };
  const lastWhole = bytes.length - 3;
  const nodeCount = frame.length;
  let at = 0;
  let node = 0;
  while (node < nodeCount) {
    while (node < nodeCount && at <= lastWhole) {
      const first = bytes[at]!;
      const second = bytes[at + 1]!;
      let number = first;
      let length = 1;
      if (first >= 0x80) {
        number = (first & 0x7f) | ((second & 0x7f) << 7);
        length = 2;
        if (second >= 0x80) {
          const third = bytes[at + 2]!;
          if (third >= 0x80) break;
          number |= third << 14;
          length = 3;
        }
      }
      if (number === 0 || number >= frameCount) break;
      at += length;
      frame[node++] = number;
    }
    if (node === nodeCount) break;
    column.seek(at);
    const number = column.varint();
    check(number, node);
    at = column.position;
    frame[node++] = number;
  }
  column.seek(at);
}

/** Returns the sum. */
function readValues(column: Column, self: Float64Array): number {
  const { bytes } = column;
  const nodeCount = self.length;
  const lastWhole = bytes.length - 8;
  // Nodes have a value or none as it comes, and no processor foresees which: where values are long, as
  // nanoseconds are, numbers of all lengths are read in the same few steps. Where most take one byte anyway,
  // it is quicker to look.
  const isMostlyShort = bytes.length < nodeCount * 1.25;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  let node = 0;
  let sum = 0;
  while (node < nodeCount) {
    if (isMostlyShort) {
      while (node < nodeCount && at <= lastWhole) {
        const first = bytes[at]!;
        let number = first;
        let length = 1;
        if (first >= 0x80) {
          const second = bytes[at + 1]!;
          if (second >= 0x80) break;
          number = (first & 0x7f) | (second << 7);
          length = 2;
        }
        self[node++] = number;
        sum += number;
        at += length;
      }
    } else {
      while (node < nodeCount && at <= lastWhole) {
        const low = view.getInt32(at, true);
        // The top bit of each byte that ends a number; the lowest of them is this number's.
        const ends = ~low & 0x80808080;
        let number: number;
        if (ends !== 0) {
          const end = ends & -ends;
          number = sevenBitsOfEach(low & (end - 1));
          at += (39 - Math.clz32(end)) >> 3;
        } else {
          const high = view.getInt32(at + 4, true);
          const ends = ~high & 0x80808080;
          if (ends === 0) break;
          const end = ends & -ends;
          number = sevenBitsOfEach(low) + sevenBitsOfEach(high & (end - 1)) * 2 ** 28;
          at += (71 - Math.clz32(end)) >> 3;
        }
        self[node++] = number;
        sum += number;
      }
    }
    if (node === nodeCount) break;
    column.seek(at);
    const number = column.varint();
    at = column.position;
    self[node++] = number;
    sum += number;
  }
  column.seek(at);
  return sum;
}

/** The number that the lower seven bits of four bytes make. */
function sevenBitsOfEach(bytes: number): number {
  return (bytes & 0x7f) | ((bytes >>> 1) & 0x3f80) | ((bytes >>> 2) & 0x1fc000) | ((bytes >>> 3) & 0xfe00000);
}

function readStrings(column: Column, bytes: Uint8Array, count: number): string[] {
  const lengths = column.varints(count);
  // A call for each of ten thousands takes longer than all nodes. Names of functions are rarely anything but
  // ASCII, and then one call decodes the lot: where it gives a character for each byte, strings are cut out of
  // that. Elsewhere a byte a character is good enough for those that are ASCII. Bytes that are no UTF-8 must
  // not stop the reader: they show as U+FFFD.
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  let whole = decoder.decode(bytes);
  const isByteACharacter = whole.length === bytes.length;
  if (!isByteACharacter) whole = new TextDecoder('latin1').decode(bytes);
  const strings: string[] = [];
  let at = 0;
  for (let row = 0; row < count; row++) {
    const length = lengths[row]!;
    if (length > bytes.length - at) throw column.error(`string ${row} is cut off`);
    const after = at + length;
    const isCut = isByteACharacter || isAscii(bytes, at, after);
    strings.push(isCut ? whole.slice(at, after) : decoder.decode(bytes.subarray(at, after)));
    at = after;
  }
  if (at !== bytes.length) throw column.error(`${bytes.length - at} bytes belong to no string`);
  return strings;
}

function isAscii(bytes: Uint8Array, from: number, to: number): boolean {
  let seen = 0;
  for (let at = from; at < to; at++) seen |= bytes[at]!;
  return seen < 0x80;
}
