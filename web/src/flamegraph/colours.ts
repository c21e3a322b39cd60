// The colour of a frame: the sort decides the hue, the name the shade, so that a function looks the same
// in every graph. Sorts differ in lightness too, for those who cannot tell the hues apart.

import { FrameClass, isCode, type Frame } from './graph';
import { hashText } from './names';

export type Theme = 'light' | 'dark';

/** Hue, and the ranges of saturation and lightness in percent, light and dark. */
interface Palette {
  readonly hue: readonly [number, number];
  readonly saturation: readonly [number, number];
  readonly light: readonly [number, number];
  readonly dark: readonly [number, number];
}

const PALETTES: Readonly<Record<number, Palette>> = {
  [FrameClass.Root]: { hue: [220, 220], saturation: [8, 8], light: [82, 82], dark: [30, 30] },
  [FrameClass.Native]: { hue: [8, 40], saturation: [82, 92], light: [66, 74], dark: [50, 57] },
  [FrameClass.Inlined]: { hue: [188, 206], saturation: [48, 60], light: [67, 75], dark: [45, 52] },
  [FrameClass.Kernel]: { hue: [262, 282], saturation: [44, 56], light: [74, 81], dark: [56, 63] },
  [FrameClass.Jit]: { hue: [112, 142], saturation: [42, 54], light: [65, 73], dark: [44, 51] },
  [FrameClass.Interpreter]: { hue: [52, 60], saturation: [80, 88], light: [62, 68], dark: [48, 54] },
  [FrameClass.Label]: { hue: [212, 222], saturation: [22, 32], light: [76, 82], dark: [42, 48] },
  [FrameClass.Incomplete]: { hue: [0, 0], saturation: [0, 0], light: [88, 88], dark: [24, 24] },
  [FrameClass.Smaller]: { hue: [220, 220], saturation: [10, 10], light: [92, 92], dark: [20, 20] },
};
const UNNAMED: Palette = { hue: [220, 220], saturation: [4, 9], light: [74, 80], dark: [40, 46] };

const DARK_SATURATION = 0.76;

/** What the legend shows, in its order. */
export const LEGEND: readonly (readonly [string, FrameClass, boolean])[] = [
  ['native', FrameClass.Native, false],
  ['inlined', FrameClass.Inlined, false],
  ['kernel', FrameClass.Kernel, false],
  ['JIT', FrameClass.Jit, false],
  ['interpreter', FrameClass.Interpreter, false],
  ['no name', FrameClass.Native, true],
  ['process', FrameClass.Label, false],
  ['incomplete stack', FrameClass.Incomplete, false],
];

export function frameColour(frame: Pick<Frame, 'name' | 'frameClass' | 'unnamed'>, theme: Theme): string {
  const palette =
    frame.unnamed && frame.frameClass !== FrameClass.Kernel ? UNNAMED : PALETTES[frame.frameClass]!;
  const hash = hashText(frame.name);
  const pick = ([low, high]: readonly [number, number], shift: number): number =>
    Math.round((low + ((high - low) * ((hash >>> shift) & 0xff)) / 0xff) * 10) / 10;
  // What glows on white is shrill on black.
  const saturation = pick(palette.saturation, 8) * (theme === 'dark' ? DARK_SATURATION : 1);
  return `hsl(${pick(palette.hue, 0)} ${saturation.toFixed(1)}% ${pick(palette[theme], 16)}%)`;
}

/** Whether light text is needed on this frame's box in the dark theme. */
export function isDarkBox(frame: Pick<Frame, 'frameClass' | 'unnamed'>): boolean {
  const { frameClass, unnamed } = frame;
  if (unnamed && frameClass !== FrameClass.Kernel) return true;
  return !isCode({ frameClass });
}

/** The middle of a sort's colours, for the legend. */
export function legendColour(frameClass: FrameClass, unnamed: boolean, theme: Theme): string {
  const palette = unnamed ? UNNAMED : PALETTES[frameClass]!;
  const middle = ([low, high]: readonly [number, number]): number => (low + high) / 2;
  const saturation = middle(palette.saturation) * (theme === 'dark' ? DARK_SATURATION : 1);
  return `hsl(${middle(palette.hue)} ${saturation.toFixed(1)}% ${middle(palette[theme])}%)`;
}

/**
 * The colour of a change of a share: red for what grew, blue for what shrank, grey for what stayed; the
 * deeper the larger. `change` lies between -1 (gone) and 1 (new).
 */
export function changeColour(change: number, theme: Theme): string {
  const depth = Math.min(1, Math.abs(change));
  // Small changes must be told from none: the root stretches them.
  const strength = Math.sqrt(depth);
  if (strength < 0.05) return theme === 'light' ? 'hsl(220 8% 84%)' : 'hsl(220 6% 38%)';
  const hue = change > 0 ? 8 : 214;
  const lightness = theme === 'light' ? 88 - 28 * strength : 36 + 20 * strength;
  return `hsl(${hue} ${Math.round(30 + 55 * strength)}% ${Math.round(lightness)}%)`;
}

/** Whether light text is needed on the box of a change in the dark theme: its colour as {@link changeColour} has it. */
export function isDarkChange(change: number): boolean {
  return Math.abs(change) < 0.1;
}

/** Everything on the canvas that is no frame. */
export interface CanvasColours {
  readonly background: string;
  readonly text: string;
  readonly fadedText: string;
  /** Several boxes that are narrower than a pixel. */
  readonly merged: string;
  readonly hit: string;
  readonly hitText: string;
  /** On boxes that are dark in the dark theme. */
  readonly textOnDark: string;
  readonly mergedHit: string;
  /** The border of a box whose change is certain. */
  readonly certain: string;
  readonly outline: string;
  readonly hoverOutline: string;
}

export const CANVAS_COLOURS: Readonly<Record<Theme, CanvasColours>> = {
  light: {
    background: '#ffffff',
    text: '#16181d',
    fadedText: '#5b6170',
    merged: '#c9cdd6',
    hit: '#d016b6',
    hitText: '#ffffff',
    textOnDark: '#16181d',
    mergedHit: '#d016b6',
    certain: '#16181d',
    outline: '#0b57d0',
    hoverOutline: '#16181d',
  },
  dark: {
    background: '#16181d',
    text: '#0e0f12',
    fadedText: '#c3c8d2',
    merged: '#4a505c',
    hit: '#ee6fe2',
    hitText: '#0e0f12',
    textOnDark: '#d5d9e2',
    mergedHit: '#ee6fe2',
    certain: '#ffffff',
    outline: '#8ab4f8',
    hoverOutline: '#ffffff',
  },
};
