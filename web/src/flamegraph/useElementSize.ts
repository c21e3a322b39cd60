import { useEffect, useState } from 'preact/hooks';

export interface ElementSize {
  /** CSS pixels. */
  readonly width: number;
  readonly height: number;
  /** Device pixels for each of them. */
  readonly density: number;
}

/** The size of an element and the density of the screen, whenever they change. */
export function useElementSize(element: { readonly current: HTMLElement | null }): ElementSize {
  const [size, setSize] = useState<ElementSize>({ width: 0, height: 0, density: 1 });
  useEffect(() => {
    const watched = element.current;
    if (watched === null) return;
    const measure = (): void =>
      setSize({ width: watched.clientWidth, height: watched.clientHeight, density: Math.max(1, window.devicePixelRatio) });
    const observer = new ResizeObserver(measure);
    observer.observe(watched);
    window.addEventListener('resize', measure);
    measure();
    return () => {
      observer.disconnect();
      window.removeEventListener('resize', measure);
    };
  }, []);
  return size;
}
