// A flame graph on the page: a canvas of the size of what is seen, inside an element that scrolls; the
// pointer and the keys; a tooltip; and beside the canvas the tree that screen readers walk. What is zoomed,
// selected and searched for belongs to the page around it, which has it in the URL.

import type { JSX } from 'preact';
import { useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';

import type { RowHits } from './boxes';
import type { Theme } from './colours';
import { detailsOf, treeItems, type Measure } from './details';
import type { DiffGraph } from './diff';
import { FigureTable } from './FigureTable';
import type { FlameGraph } from './graph';
import { commandOf, type Command } from './keyboard';
import { Painter } from './painter';
import { layoutOf, nodeAtPoint, scrollToRow, type Direction } from './view';
import { useElementSize, type ElementSize } from './useElementSize';
import { fileName } from './values';

const ROW_CSS_PX = 19;

export interface FlameGraphViewProps {
  readonly label: string;
  readonly graph: FlameGraph;
  readonly comparison?: DiffGraph | undefined;
  readonly measure: Measure;
  readonly direction: Direction;
  readonly theme: Theme;
  readonly zoom: number;
  readonly selected: number;
  readonly hits: RowHits | undefined;
  readonly autoFocus?: boolean;
  readonly onSelect: (node: number) => void;
  readonly onZoom: (node: number) => void;
  readonly onCommand: (command: Command) => void;
}

interface Hover {
  readonly node: number;
  /** CSS pixels inside the view. */
  readonly x: number;
  readonly y: number;
}

export function FlameGraphView(props: FlameGraphViewProps): JSX.Element {
  const { graph, comparison, measure, direction, theme, zoom, selected, hits } = props;
  const scroller = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const painter = useMemo(() => new Painter(), []);
  const size = useElementSize(scroller);
  const [scroll, setScroll] = useState(0);
  const [hover, setHover] = useState<Hover | undefined>(undefined);

  const hovered = hover?.node ?? -1;
  const { width, height, density } = size;
  const widthPx = Math.round(width * density);
  const heightPx = Math.round(height * density);
  const layout = useMemo(
    () => layoutOf(graph, zoom, direction, widthPx, heightPx, Math.round(ROW_CSS_PX * density)),
    [graph, zoom, direction, widthPx, heightPx, density],
  );

  // To ask an element where it is scrolled to makes the browser lay the page out at once, and again for the
  // frame: what it has told by itself is as good.
  const scrollTo = (top: number): void => {
    if (top !== scroll && scroller.current !== null) scroller.current.scrollTop = top;
  };

  // Another graph, or turned around: to the root, which a flame has at its bottom.
  useLayoutEffect(() => {
    scrollTo(direction === 'flame' ? (layout.contentPx - heightPx) / density : 0);
  }, [graph, direction, layout.contentPx === heightPx]);

  // The selected frame stays in sight when the keys move it.
  useLayoutEffect(() => {
    if (heightPx === 0) return;
    const now = Math.round(scroll * density);
    const wanted = scrollToRow(layout, graph.depth[selected] ?? 0, now, heightPx);
    if (wanted !== now) scrollTo(wanted / density);
  }, [selected, layout]);

  useLayoutEffect(() => {
    const element = canvas.current;
    if (element === null || widthPx === 0 || heightPx === 0) return;
    if (element.width !== widthPx) element.width = widthPx;
    if (element.height !== heightPx) element.height = heightPx;
    const surface = element.getContext('2d', { alpha: false });
    if (surface === null) return;
    const begun = performance.now();
    const boxes = painter.paint(surface, {
      graph,
      comparison,
      layout,
      heightPx,
      scrollPx: Math.round(scroll * density),
      density,
      theme,
      zoom,
      selected,
      hovered,
      hits,
    });
    // Read by the browser test; costs nothing.
    element.dataset.boxes = String(boxes);
    element.dataset.certain = String(painter.marked.certain);
    element.dataset.noise = String(painter.marked.noise);
    element.dataset.paintMs = (performance.now() - begun).toFixed(2);
  }, [graph, comparison, layout, heightPx, scroll, density, theme, zoom, selected, hovered, hits]);

  const nodeUnder = (event: MouseEvent): Hover | undefined => {
    const element = scroller.current;
    if (element === null) return undefined;
    const box = element.getBoundingClientRect();
    const x = event.clientX - box.left;
    const y = event.clientY - box.top;
    const node = nodeAtPoint(graph, layout, Math.floor(x * density), Math.floor((y + element.scrollTop) * density));
    return node < 0 ? undefined : { node, x, y };
  };

  const items = useMemo(
    () => treeItems(graph, selected, zoom, measure, comparison),
    [graph, selected, zoom, measure, comparison],
  );
  const idOf = (node: number): string => `${props.label}-${node}`.replace(/\W/g, '-');

  return (
    <div class="flamegraph">
      <div
        ref={scroller}
        class="flamegraph-scroller"
        role="tree"
        aria-label={props.label}
        aria-activedescendant={idOf(selected)}
        tabIndex={0}
        autofocus={props.autoFocus ?? false}
        onScroll={(event) => setScroll(event.currentTarget.scrollTop)}
        onMouseMove={(event) => setHover(nodeUnder(event))}
        onMouseLeave={() => setHover(undefined)}
        onClick={(event) => {
          const under = nodeUnder(event);
          if (under === undefined) return;
          props.onSelect(under.node);
          props.onZoom(under.node);
        }}
        onKeyDown={(event) => {
          const command = commandOf(event, direction);
          if (command === undefined) return;
          event.preventDefault();
          event.stopPropagation();
          props.onCommand(command);
        }}
      >
        <canvas
          ref={canvas}
          class="flamegraph-canvas"
          aria-hidden="true"
          style={{ width: `${width}px`, height: `${height}px`, cursor: hover === undefined ? 'default' : 'pointer' }}
        />
        <div class="flamegraph-content" style={{ height: `${Math.max(0, layout.contentPx / density - height)}px` }} />
        <div class="visually-hidden">
          {items.map((item) => (
            <div
              key={item.node}
              id={idOf(item.node)}
              role="treeitem"
              aria-level={item.level}
              aria-selected={item.selected}
              aria-expanded={item.expanded}
              aria-posinset={item.position}
              aria-setsize={item.setSize}
              aria-label={item.label}
            />
          ))}
        </div>
      </div>
      {hover !== undefined && (
        <Tooltip graph={graph} comparison={comparison} zoom={zoom} measure={measure} hover={hover} size={size} />
      )}
    </div>
  );
}

function Tooltip(props: {
  readonly graph: FlameGraph;
  readonly comparison: DiffGraph | undefined;
  readonly zoom: number;
  readonly measure: Measure;
  readonly hover: Hover;
  readonly size: ElementSize;
}): JSX.Element {
  const { hover, size } = props;
  const details = detailsOf(props.graph, hover.node, props.zoom, props.measure, props.comparison);
  const right = hover.x > size.width / 2;
  const below = hover.y < size.height / 2;
  const style = {
    left: right ? 'auto' : `${hover.x + 14}px`,
    right: right ? `${size.width - hover.x + 14}px` : 'auto',
    top: below ? `${hover.y + 18}px` : 'auto',
    bottom: below ? 'auto' : `${size.height - hover.y + 14}px`,
  };
  const where = [details.sort, details.module === '' ? '' : fileName(details.module), details.source];
  return (
    <div class="tooltip" style={style} aria-hidden="true">
      <div class="tooltip-name">{details.name}</div>
      <div class="tooltip-where">{where.filter((part) => part !== '').join(' · ')}</div>
      {details.note !== '' && <div class="tooltip-where">{details.note}</div>}
      <FigureTable details={details} />
    </div>
  );
}
