// Draws a graph on a 2D canvas, in device pixels: only the rows that are seen, of each only the boxes
// that `boxes.ts` finds. Everything that is drawn is in a `Scene`; the painter keeps nothing but what it
// has measured and computed of colours and labels.

import { RowBoxes, boxesOfRow, type RowHits } from './boxes';
import { CANVAS_COLOURS, changeColour, frameColour, isDarkBox, isDarkChange, type Theme } from './colours';
import { changeOf, type DiffGraph } from './diff';
import { isWithin, leftOf, type FlameGraph, type Frame } from './graph';
import { shortName } from './names';
import { Mark } from './verdicts';
import { depthAt, rowTop, type Layout } from './view';

export interface Scene {
  readonly graph: FlameGraph;
  readonly comparison: DiffGraph | undefined;
  readonly layout: Layout;
  readonly heightPx: number;
  readonly scrollPx: number;
  /** Device pixels for each CSS pixel. */
  readonly density: number;
  readonly theme: Theme;
  readonly zoom: number;
  readonly selected: number;
  /** -1 for none. */
  readonly hovered: number;
  readonly hits: RowHits | undefined;
}

/** The part of a 2D context that is used, so that a test can stand in for it. */
export type Surface = Pick<
  CanvasRenderingContext2D,
  | 'fillStyle' | 'strokeStyle' | 'lineWidth' | 'font' | 'textBaseline' | 'globalAlpha'
  | 'fillRect' | 'strokeRect' | 'fillText' | 'measureText' | 'beginPath' | 'moveTo' | 'lineTo' | 'stroke'
>;

export const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
const FONT_CSS_PX = 12;
const NARROWEST_LABEL_CSS_PX = 22;
const LONGEST_LABEL = 400;
/** From one line of the hatching to the next. */
const HATCH_CSS_PX = 7;
/** Stand before the name of what has certainly a greater or a smaller share. */
const MORE = '▲';
const LESS = '▼';
/** Ancestors of the zoomed frame, and what is no hit while there are hits. */
const FADED = 0.42;

export class Painter {
  private readonly boxes = new RowBoxes();
  private colours: (string | undefined)[] = [];
  private labels = new LabelFitter();
  private frames: readonly Frame[] = [];
  private theme: Theme = 'light';
  private density = 0;
  /** Boxes that were marked when it was painted last. */
  readonly marked = { certain: 0, noise: 0 };

  /** Draws the scene and returns how many boxes that took. */
  paint(surface: Surface, scene: Scene): number {
    this.forgetIfOther(scene);
    const { graph, layout, heightPx, scrollPx, density } = scene;
    const colours = CANVAS_COLOURS[scene.theme];
    surface.globalAlpha = 1;
    surface.fillStyle = colours.background;
    surface.fillRect(0, 0, layout.widthPx, heightPx);
    surface.font = `${Math.round(FONT_CSS_PX * density)}px ${FONT}`;
    surface.textBaseline = 'middle';

    const edges = [depthAt(layout, scrollPx), depthAt(layout, scrollPx + heightPx - 1)];
    const first = Math.max(0, Math.min(...edges));
    const last = Math.min(graph.maxDepth, Math.max(...edges));
    this.marked.certain = 0;
    this.marked.noise = 0;
    let drawn = 0;
    for (let depth = first; depth <= last; depth++) {
      boxesOfRow(graph, depth, layout.window, scene.hits, this.boxes);
      drawn += this.boxes.count;
      this.paintRow(surface, scene, rowTop(layout, depth) - scrollPx);
    }
    surface.globalAlpha = 1;
    this.outline(surface, scene, scene.hovered, colours.hoverOutline, Math.max(1, Math.round(density)));
    this.outline(surface, scene, scene.selected, colours.outline, Math.max(2, Math.round(2 * density)));
    return drawn;
  }

  private forgetIfOther(scene: Scene): void {
    if (scene.graph.frames !== this.frames || scene.theme !== this.theme) this.colours = [];
    if (scene.graph.frames !== this.frames || scene.density !== this.density) this.labels = new LabelFitter();
    this.frames = scene.graph.frames;
    this.theme = scene.theme;
    this.density = scene.density;
  }

  private paintRow(surface: Surface, scene: Scene, top: number): void {
    const { graph, layout, density, hits } = scene;
    const colours = CANVAS_COLOURS[scene.theme];
    const gap = Math.max(1, Math.round(density));
    const height = layout.rowPx - gap;
    const narrowestLabel = NARROWEST_LABEL_CSS_PX * density;
    const padding = Math.round(4 * density);
    for (let box = 0; box < this.boxes.count; box++) {
      const left = this.boxes.left[box]!;
      const width = this.boxes.right[box]! - left;
      const node = this.boxes.node[box]!;
      const isHit = this.boxes.hit[box] === 1;
      const outsideZoom = node >= 0 && node !== scene.zoom && isWithin(graph, scene.zoom, node);
      surface.globalAlpha = (hits !== undefined && !isHit) || outsideZoom ? FADED : 1;
      if (node < 0) {
        surface.fillStyle = isHit ? colours.mergedHit : colours.merged;
        surface.fillRect(left, top, width, height);
        continue;
      }
      surface.fillStyle = isHit ? colours.hit : this.colourOf(scene, node);
      // The gap belongs to the box on its left; a box of two pixels keeps both.
      const inner = width > 3 * gap ? width - gap : width;
      surface.fillRect(left, top, inner, height);
      const mark = scene.comparison?.marks?.markOf(scene.comparison, node) ?? Mark.None;
      if (mark === Mark.Noise) {
        this.marked.noise++;
        if (!isHit) hatch(surface, left, top, inner, height, colours.background, density);
      } else if (mark === Mark.Certain) {
        this.marked.certain++;
        edge(surface, left, top, inner, height, colours.certain, density);
      }
      if (width < narrowestLabel) continue;
      const frame = graph.frames[graph.frame[node]!]!;
      const sign = mark === Mark.Certain ? (changeOf(scene.comparison!, node).points > 0 ? MORE : LESS) : '';
      const signPx = sign === '' ? 0 : this.labels.letter(surface, sign) + padding;
      const text = this.labels.fit(surface, graph.frame[node]!, frame.name, width - gap - 2 * padding - signPx);
      if (text === '' && sign === '') continue;
      surface.globalAlpha = 1;
      surface.fillStyle = isHit
        ? colours.hitText
        : outsideZoom || hits !== undefined
          ? colours.fadedText
          : this.needsLightText(scene, node, frame, mark)
            ? colours.textOnDark
            : colours.text;
      const middle = top + Math.round(height / 2) + gap;
      if (sign !== '') surface.fillText(sign, left + padding, middle);
      if (text !== '') surface.fillText(text, left + padding + signPx, middle);
    }
  }

  /** In the dark theme; in the light one both texts are the same. */
  private needsLightText(scene: Scene, node: number, frame: Frame, mark: Mark): boolean {
    if (scene.comparison === undefined) return isDarkBox(frame);
    // Hatching is dark there.
    return mark === Mark.Noise || isDarkChange(changeOf(scene.comparison, node).balance);
  }

  private colourOf(scene: Scene, node: number): string {
    if (scene.comparison !== undefined) return changeColour(changeOf(scene.comparison, node).balance, scene.theme);
    const frame = scene.graph.frame[node]!;
    const known = this.colours[frame];
    if (known !== undefined) return known;
    const colour = frameColour(scene.graph.frames[frame]!, scene.theme);
    this.colours[frame] = colour;
    return colour;
  }

  private outline(surface: Surface, scene: Scene, node: number, colour: string, width: number): void {
    if (node < 0) return;
    const { graph, layout, scrollPx, heightPx } = scene;
    const { from, to, widthPx } = layout.window;
    if (!(to > from)) return;
    const scale = widthPx / (to - from);
    const begin = leftOf(graph, node) - from;
    const left = Math.max(0, Math.round(begin * scale));
    const right = Math.min(widthPx, Math.round((begin + graph.total[node]!) * scale));
    const top = rowTop(layout, graph.depth[node]!) - scrollPx;
    if (right < 0 || left > widthPx || right < left || top + layout.rowPx < 0 || top > heightPx) return;
    surface.strokeStyle = colour;
    surface.lineWidth = width;
    // Inside the box, but never thinner than the line itself.
    const inner = Math.max(width, right - left - width);
    surface.strokeRect(left + width / 2, top + width / 2, inner, layout.rowPx - width);
  }
}

/** What is within noise: lines in the colour of the background, from the lower left to the upper right. */
function hatch(surface: Surface, left: number, top: number, width: number, height: number, colour: string, density: number): void {
  const step = Math.round(HATCH_CSS_PX * density);
  const { globalAlpha } = surface;
  // The name on it must be read.
  surface.globalAlpha = globalAlpha * 0.6;
  surface.strokeStyle = colour;
  surface.lineWidth = Math.max(1, Math.round(1.5 * density));
  surface.beginPath();
  // A line begins at the lower edge, or at the left one; the grid is that of the canvas, so that it does not jump
  // from box to box.
  const first = left - (left % step) - step * Math.ceil(height / step);
  for (let x = first; x < left + width; x += step) {
    const from = Math.max(x, left);
    const to = Math.min(x + height, left + width);
    if (to <= from) continue;
    surface.moveTo(from, top + height - (from - x));
    surface.lineTo(to, top + height - (to - x));
  }
  surface.stroke();
  surface.globalAlpha = globalAlpha;
}

/** What is certain: a border; of a narrow box its lower edge alone, which leaves its colour to be seen. */
function edge(surface: Surface, left: number, top: number, width: number, height: number, colour: string, density: number): void {
  const line = Math.max(2, Math.round(2 * density));
  if (width < 4 * line) {
    surface.fillStyle = colour;
    surface.fillRect(left, top + height - line, width, line);
    return;
  }
  surface.strokeStyle = colour;
  surface.lineWidth = line;
  surface.strokeRect(left + line / 2, top + line / 2, width - line, height - line);
}

/**
 * Fits names into boxes: whole, else short, else cut with an ellipsis. Widths are sums of the widths of
 * letters, each measured once: to measure every text takes longer than to draw it.
 */
class LabelFitter {
  private readonly letters = new Map<string, number>();
  private readonly shortNames: (string | undefined)[] = [];

  fit(surface: Surface, frame: number, wholeName: string, width: number): string {
    // Names of templates can fill pages; no box is that wide.
    const name = wholeName.slice(0, LONGEST_LABEL);
    if (this.lettersWithin(surface, name, width) === name.length) return name;
    const short = (this.shortNames[frame] ??= shortName(wholeName).slice(0, LONGEST_LABEL));
    if (this.lettersWithin(surface, short, width) === short.length) return short;
    const kept = this.lettersWithin(surface, short, width - this.letter(surface, '…'));
    return kept > 1 ? `${short.slice(0, kept)}…` : '';
  }

  /** How many UTF-16 units of the text fit, never half a letter. */
  private lettersWithin(surface: Surface, text: string, width: number): number {
    let used = 0;
    let units = 0;
    for (const letter of text) {
      used += this.letter(surface, letter);
      if (used > width) break;
      units += letter.length;
    }
    return units;
  }

  letter(surface: Surface, letter: string): number {
    let width = this.letters.get(letter);
    if (width === undefined) {
      width = surface.measureText(letter).width;
      this.letters.set(letter, width);
    }
    return width;
  }
}
