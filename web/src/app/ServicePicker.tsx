// Which service is shown: a list to search in, those with the most samples first.

import type { JSX } from 'preact';
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';

import { formatShare } from '../flamegraph/values';
import type { Service } from './api';
import { Popover } from './Popover';

/** A list is cut here; what is searched for is found beyond it. */
const MOST_SHOWN = 200;

interface Choice {
  /** As the API takes it; empty for the whole host. */
  readonly value: string;
  readonly text: string;
  readonly samples: number;
}

export function ServicePicker(props: {
  readonly label: string;
  readonly services: readonly Service[];
  readonly value: string;
  readonly open: boolean;
  readonly onOpen: (open: boolean) => void;
  readonly onPick: (value: string) => void;
}): JSX.Element {
  const { services, value, onPick } = props;
  const face = value === '' ? 'Whole host' : value;
  return (
    <Popover
      name="service"
      title={`${props.label}: ${face}`}
      role="listbox"
      open={props.open}
      onOpen={props.onOpen}
      face={
        <>
          <span class="face-text">{face}</span>
          <span class="caret" aria-hidden="true" />
        </>
      }
    >
      <Choices services={services} value={value} label={props.label} onPick={onPick} />
    </Popover>
  );
}

function Choices(props: {
  readonly services: readonly Service[];
  readonly value: string;
  readonly label: string;
  readonly onPick: (value: string) => void;
}): JSX.Element {
  const { services, value } = props;
  const [wanted, setWanted] = useState('');
  const [active, setActive] = useState(0);
  const list = useRef<HTMLUListElement>(null);
  const all = useMemo(() => services.reduce((sum, service) => sum + service.samples, 0), [services]);
  const choices = useMemo((): Choice[] => {
    const lower = wanted.trim().toLowerCase();
    const named = services.filter((service) => service.name !== '' && service.name.toLowerCase().includes(lower));
    const found = named.map(({ name, samples }) => ({ value: name, text: name, samples }));
    // A service that has gone out of the range can still be the one that is chosen.
    if (value !== '' && lower === '' && !services.some((service) => service.name === value)) {
      found.unshift({ value, text: value, samples: 0 });
    }
    return lower === '' ? [{ value: '', text: 'Whole host', samples: all }, ...found] : found;
  }, [services, wanted, value, all]);
  const shown = choices.slice(0, MOST_SHOWN);
  const at = Math.min(active, shown.length - 1);
  useEffect(() => setActive(Math.max(0, wanted === '' ? choices.findIndex((choice) => choice.value === value) : 0)), [wanted]);
  useEffect(() => {
    list.current?.querySelector('[data-active]')?.scrollIntoView({ block: 'nearest' });
  }, [at, shown.length]);
  const idOf = (place: number): string => `service-${place}`;
  return (
    <>
      <input
        data-first
        type="search"
        role="combobox"
        placeholder="Search a service"
        aria-label={props.label}
        aria-expanded="true"
        aria-controls="services"
        aria-activedescendant={shown.length > 0 ? idOf(at) : undefined}
        autocomplete="off"
        spellcheck={false}
        value={wanted}
        onInput={(event) => setWanted(event.currentTarget.value)}
        onKeyDown={(event) => {
          const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10 }[event.key];
          if (step !== undefined) {
            event.preventDefault();
            setActive(Math.max(0, Math.min(shown.length - 1, at + step)));
          } else if (event.key === 'Enter') {
            event.preventDefault();
            const choice = shown[at];
            if (choice !== undefined) props.onPick(choice.value);
          }
        }}
      />
      <ul ref={list} id="services" role="listbox" aria-label={props.label} class="choices">
        {shown.map((choice, place) => (
          <li
            key={choice.value}
            id={idOf(place)}
            role="option"
            aria-selected={choice.value === value}
            data-active={place === at ? '' : undefined}
            title={choice.text}
            onPointerMove={() => setActive(place)}
            onClick={() => props.onPick(choice.value)}
          >
            <span class="bar-of" style={{ width: `${all > 0 ? (choice.samples / all) * 100 : 0}%` }} />
            <span class="name">{choice.text}</span>
            <span class="figure">{choice.samples > 0 ? formatShare(choice.samples, all) : ''}</span>
          </li>
        ))}
      </ul>
      {shown.length === 0 && <p class="hint">No service of that name in this range.</p>}
      {choices.length > shown.length && <p class="hint">and {choices.length - shown.length} more: search for them</p>}
    </>
  );
}
