import type { Theme } from '../flamegraph/colours';
import { hashText } from '../flamegraph/names';

/** A service's colour, the same in every trace. Steps of a hue that the eye tells apart. */
export function serviceColour(service: string, theme: Theme): string {
  if (service === '') return theme === 'light' ? 'hsl(220 8% 62%)' : 'hsl(220 6% 52%)';
  const hash = hashText(service);
  const hue = (hash % 18) * 20 + 6;
  return theme === 'light' ? `hsl(${hue} 58% ${46 + ((hash >>> 8) % 3) * 5}%)` : `hsl(${hue} 48% ${50 + ((hash >>> 8) % 3) * 5}%)`;
}
