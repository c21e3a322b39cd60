// Values and shares as a person reads them.

const TIME_STEPS: readonly (readonly [number, string])[] = [
  [86_400e9, 'd'],
  [3_600e9, 'h'],
  [60e9, 'min'],
  [1e9, 's'],
  [1e6, 'ms'],
  [1e3, 'µs'],
  [1, 'ns'],
];
const BYTE_STEPS: readonly (readonly [number, string])[] = [
  [2 ** 40, 'TiB'],
  [2 ** 30, 'GiB'],
  [2 ** 20, 'MiB'],
  [2 ** 10, 'KiB'],
  [1, 'B'],
];
const COUNT_STEPS: readonly (readonly [number, string])[] = [
  [1e9, 'G'],
  [1e6, 'M'],
  [1e4, 'k'],
  [1, ''],
];
const NANOSECONDS: Readonly<Record<string, number>> = {
  nanoseconds: 1,
  microseconds: 1e3,
  milliseconds: 1e6,
  seconds: 1e9,
};

/** `1.24 s`, `17.5 MiB`, `12,345 samples`: three digits that mean something, and the unit. */
export function formatValue(value: number, unit: string, kind = ''): string {
  const sign = value < 0 ? '−' : '';
  const size = Math.abs(value);
  const inNs = NANOSECONDS[unit];
  if (inNs !== undefined) return sign + stepped(size * inNs, TIME_STEPS, ' ');
  if (unit === 'bytes') return sign + stepped(size, BYTE_STEPS, ' ');
  // 12,345 is read more exactly than 12.3 k and takes no more room.
  if (size < 1e6) {
    const whole = Number.isInteger(size) ? groupThousands(size) : significant(size);
    const counted = unit === 'count' ? kind : unit;
    return `${sign}${whole}${counted === '' ? '' : ` ${counted}`}`;
  }
  const counted = unit === 'count' ? kind : unit;
  return `${sign}${stepped(size, COUNT_STEPS, ' ')}${counted === '' ? '' : ` ${counted}`}`;
}

/** `12.3 %`; small shares keep two digits, and what is there but tiny never reads as nothing. */
export function formatShare(part: number, whole: number): string {
  if (whole === 0) return '–';
  const percent = (part / whole) * 100;
  const size = Math.abs(percent);
  const sign = percent < 0 ? '−' : '';
  if (size === 0) return '0 %';
  if (size < 0.01) return `${sign}<0.01 %`;
  if (size < 1) return `${sign}${size.toFixed(2)} %`;
  return `${sign}${size >= 99.95 ? '100' : size.toFixed(1)} %`;
}

/** As {@link formatShare}, with a sign in front of what grew. */
export function formatChange(percent: number): string {
  if (percent === Infinity) return 'new';
  if (percent === -100) return 'gone';
  const text = formatShare(percent, 100);
  return percent > 0 ? `+${text}` : text;
}

function stepped(value: number, steps: readonly (readonly [number, string])[], space: string): string {
  for (const [size, unit] of steps) {
    if (value >= size) return significant(value / size) + (unit === '' ? '' : space + unit);
  }
  const [, unit] = steps.at(-1)!;
  return significant(value) + (unit === '' ? '' : space + unit);
}

function significant(value: number): string {
  if (value === 0) return '0';
  if (value >= 100) return groupThousands(Math.round(value));
  return Number(value.toPrecision(3)).toString();
}

function groupThousands(value: number): string {
  return value.toFixed(0).replace(/\B(?=(\d{3})+$)/g, ',');
}

/** The last part of a path, without the kernel's ` (deleted)`. */
export function fileName(path: string): string {
  const whole = path.replace(/ \(deleted\)$/, '');
  return whole.slice(whole.lastIndexOf('/') + 1);
}
