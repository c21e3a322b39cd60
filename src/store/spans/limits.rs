//! How large a span may be, and what is cut off one that is larger.
//!
//! The counts are those of OpenTelemetry's SDKs (specification, "SDK environment variables": 128 attributes,
//! events and links, 128 attributes of each of those); SDKs do not limit the length of texts by default, a
//! store has to. What is left out is told on the span in the attributes that the specification has for formats
//! without fields for that ("Dropped Attributes Count": `otel.dropped_attributes_count`, …).

use std::borrow::Cow;
use std::sync::Arc;

use super::SpanCuts;
use crate::model::span::{
    Attribute, AttributeValue, DROPPED_ATTRIBUTES, DROPPED_EVENTS, DROPPED_LINKS, Span, SpanResource,
};

/// Attributes of a span, of an event, of a link; events of a span; links of a span.
const MAX_COUNT: usize = 128;
/// A text that is longer is shortened.
const MAX_TEXT_BYTES: usize = 16 << 10;
/// Likewise a name, of a span or an attribute, a version, `tracestate`.
const MAX_NAME_BYTES: usize = 1 << 10;
/// All of a span. Attributes come first, then events, then links; those that do not fit are left out.
const MAX_SPAN_BYTES: usize = 128 << 10;
/// All of a resource.
const MAX_RESOURCE_BYTES: usize = 32 << 10;
/// Values in values.
const MAX_DEPTH: usize = 8;
/// What is counted for a value beside its contents.
const VALUE_BYTES: usize = 8;

/// The span, within the limits. What is cut off it is added to `cuts`.
pub(crate) fn within_limits<'a>(span: &'a Span, cuts: &mut SpanCuts) -> Cow<'a, Span> {
    if fits(span) {
        return Cow::Borrowed(span);
    }
    let mut cut = SpanCuts::default();
    let mut left = MAX_SPAN_BYTES;
    let mut kept = Span {
        trace_state: shortened(&span.trace_state, MAX_NAME_BYTES, &mut cut),
        name: shortened(&span.name, MAX_NAME_BYTES, &mut cut),
        status_message: shortened(&span.status_message, MAX_TEXT_BYTES, &mut cut),
        attributes: attributes(&span.attributes, &mut left, &mut cut),
        events: Vec::new(),
        links: Vec::new(),
        resource: if resource_fits(&span.resource) {
            Arc::clone(&span.resource)
        } else {
            let mut left = MAX_RESOURCE_BYTES;
            Arc::new(SpanResource { attributes: attributes(&span.resource.attributes, &mut left, &mut cut) })
        },
        scope: Arc::new((
            shortened(&span.scope.0, MAX_NAME_BYTES, &mut cut),
            shortened(&span.scope.1, MAX_NAME_BYTES, &mut cut),
        )),
        ..*span
    };
    for event in &span.events {
        let needed = event.name.len().min(MAX_NAME_BYTES) + VALUE_BYTES;
        if kept.events.len() == MAX_COUNT || needed > left {
            cut.events += 1;
            continue;
        }
        left -= needed;
        let mut event = event.clone();
        event.name = shortened(&event.name, MAX_NAME_BYTES, &mut cut);
        event.attributes = attributes(&event.attributes, &mut left, &mut cut);
        kept.events.push(event);
    }
    for link in &span.links {
        let needed = link.trace_state.len().min(MAX_NAME_BYTES) + 24 + VALUE_BYTES;
        if kept.links.len() == MAX_COUNT || needed > left {
            cut.links += 1;
            continue;
        }
        left -= needed;
        let mut link = link.clone();
        link.trace_state = shortened(&link.trace_state, MAX_NAME_BYTES, &mut cut);
        link.attributes = attributes(&link.attributes, &mut left, &mut cut);
        kept.links.push(link);
    }
    tell(&mut kept.attributes, DROPPED_ATTRIBUTES, cut.attributes);
    tell(&mut kept.attributes, DROPPED_EVENTS, cut.events);
    tell(&mut kept.attributes, DROPPED_LINKS, cut.links);
    cuts.add(&cut);
    Cow::Owned(kept)
}

/// Adds to an attribute that counts.
fn tell(attributes: &mut Vec<Attribute>, name: &'static str, count: u64) {
    if count == 0 {
        return;
    }
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    for (key, value) in attributes.iter_mut() {
        if key == name
            && let AttributeValue::Integer(before) = value
        {
            *before = before.saturating_add(count);
            return;
        }
    }
    attributes.push((Cow::Borrowed(name), AttributeValue::Integer(count)));
}

/// Whether nothing has to be cut, as with nearly all spans.
fn fits(span: &Span) -> bool {
    let short = |text: &str| text.len() <= MAX_NAME_BYTES;
    let mut bytes = 0;
    let mut all_fit = |attributes: &[Attribute]| {
        attributes.len() <= MAX_COUNT
            && attributes.iter().all(|(key, value)| {
                bytes += key.len() + size(value);
                short(key) && value_fits(value, MAX_DEPTH)
            })
            && bytes <= MAX_SPAN_BYTES
    };
    let attributes_fit = all_fit(&span.attributes)
        && span.events.len() <= MAX_COUNT
        && span.links.len() <= MAX_COUNT
        && span.events.iter().all(|event| short(&event.name) && all_fit(&event.attributes))
        && span.links.iter().all(|link| short(&link.trace_state) && all_fit(&link.attributes));
    let events = span.events.iter().map(|event| event.name.len() + VALUE_BYTES);
    let links = span.links.iter().map(|link| link.trace_state.len() + 24 + VALUE_BYTES);
    let named = events.chain(links).fold(0_usize, usize::saturating_add);
    attributes_fit
        && bytes + named <= MAX_SPAN_BYTES
        && short(&span.name)
        && short(&span.trace_state)
        && span.status_message.len() <= MAX_TEXT_BYTES
        && short(&span.scope.0)
        && short(&span.scope.1)
        && resource_fits(&span.resource)
}

fn resource_fits(resource: &SpanResource) -> bool {
    let mut bytes = 0;
    resource.attributes.len() <= MAX_COUNT
        && resource.attributes.iter().all(|(key, value)| {
            bytes += key.len() + size(value);
            key.len() <= MAX_NAME_BYTES && value_fits(value, MAX_DEPTH)
        })
        && bytes <= MAX_RESOURCE_BYTES
}

/// About how many bytes a value takes. Looks at no more than [`MAX_DEPTH`] levels: what is deeper does not fit
/// anyway.
fn size(value: &AttributeValue) -> usize {
    fn at(value: &AttributeValue, depth: usize) -> usize {
        let contents = match value {
            AttributeValue::Text(text) => text.len(),
            AttributeValue::Bytes(bytes) => bytes.len(),
            AttributeValue::Integer(_) | AttributeValue::Real(_) | AttributeValue::Truth(_) => 0,
            AttributeValue::List(_) | AttributeValue::Map(_) if depth == 0 => 0,
            AttributeValue::List(values) => values.iter().map(|value| at(value, depth - 1)).sum(),
            AttributeValue::Map(values) => {
                values.iter().map(|(key, value)| key.len() + at(value, depth - 1)).sum()
            }
        };
        contents + VALUE_BYTES
    }
    at(value, MAX_DEPTH)
}

fn value_fits(value: &AttributeValue, depth: usize) -> bool {
    match value {
        AttributeValue::Text(text) => text.len() <= MAX_TEXT_BYTES,
        AttributeValue::Bytes(bytes) => bytes.len() <= MAX_TEXT_BYTES,
        AttributeValue::Integer(_) | AttributeValue::Real(_) | AttributeValue::Truth(_) => true,
        AttributeValue::List(values) => depth > 0 && values.iter().all(|value| value_fits(value, depth - 1)),
        AttributeValue::Map(values) => {
            depth > 0
                && values
                    .iter()
                    .all(|(key, value)| key.len() <= MAX_NAME_BYTES && value_fits(value, depth - 1))
        }
    }
}

/// As many of the attributes as there is room for; texts are shortened, other values too large left out.
fn attributes(attributes: &[Attribute], left: &mut usize, cut: &mut SpanCuts) -> Vec<Attribute> {
    let mut kept: Vec<Attribute> = Vec::with_capacity(attributes.len().min(MAX_COUNT));
    for (key, value) in attributes {
        let short = match value {
            AttributeValue::Text(text) if text.len() > MAX_TEXT_BYTES => {
                Cow::Owned(AttributeValue::Text(beginning(text, MAX_TEXT_BYTES).into()))
            }
            value => Cow::Borrowed(value),
        };
        let needed = key.len().saturating_add(size(&short));
        let fits = kept.len() < MAX_COUNT
            && key.len() <= MAX_NAME_BYTES
            && value_fits(&short, MAX_DEPTH)
            && needed <= *left;
        if !fits {
            cut.attributes += 1;
            continue;
        }
        *left -= needed;
        cut.texts += u64::from(matches!(short, Cow::Owned(_)));
        kept.push((key.clone(), short.into_owned()));
    }
    kept
}

fn shortened(text: &str, limit: usize, cut: &mut SpanCuts) -> String {
    let short = beginning(text, limit);
    cut.texts += u64::from(short.len() < text.len());
    short.to_owned()
}

/// As many whole characters as there is room for.
fn beginning(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::span::{SpanEvent, SpanLink, integer_of, text_of};
    use crate::store::tests::spans::span;

    fn cut(span: &Span) -> (Span, SpanCuts) {
        let mut cuts = SpanCuts::default();
        let kept = within_limits(span, &mut cuts).into_owned();
        // What was cut once fits.
        let mut again = SpanCuts::default();
        let same = within_limits(&kept, &mut again).into_owned();
        let told = |span: &Span| {
            [DROPPED_ATTRIBUTES, DROPPED_EVENTS, DROPPED_LINKS]
                .map(|name| integer_of(&span.attributes, name).unwrap_or(0))
        };
        if kept.attributes.len() <= MAX_COUNT {
            assert_eq!((&same, again), (&kept, SpanCuts::default()));
        }
        assert_eq!(told(&kept).map(i64::cast_unsigned), [cuts.attributes, cuts.events, cuts.links]);
        (kept, cuts)
    }

    fn text(length: usize) -> AttributeValue {
        AttributeValue::Text("ä".repeat(length / 2).into())
    }

    #[test]
    fn an_ordinary_span_is_not_even_copied() {
        let span = span(1, 1);
        assert!(matches!(within_limits(&span, &mut SpanCuts::default()), Cow::Borrowed(_)));
    }

    #[test]
    fn ten_megabytes_of_one_text_become_its_beginning() {
        let mut large = span(1, 1);
        large.attributes = vec![("first".into(), text(10 << 20)), ("second".into(), text(10))];
        let (kept, cuts) = cut(&large);
        assert_eq!(cuts, SpanCuts { texts: 1, ..SpanCuts::default() });
        assert_eq!(text_of(&kept.attributes, "first").map(str::len), Some(MAX_TEXT_BYTES));
        assert_eq!(text_of(&kept.attributes, "second"), Some("äääää"));
    }

    #[test]
    fn of_too_many_attributes_events_and_links_the_first_stay_and_the_others_are_counted() {
        let mut large = span(1, 1);
        large.attributes =
            (0..130).map(|at| (format!("a{at}").into(), AttributeValue::Integer(at))).collect();
        let event = |at: u64| SpanEvent { time_unix_ns: at, name: "e".to_owned(), attributes: Vec::new() };
        large.events = (0..200).map(event).collect();
        large.events[0].attributes = large.attributes.clone();
        let link = SpanLink {
            trace_id: large.trace_id,
            span_id: large.span_id,
            trace_state: String::new(),
            attributes: Vec::new(),
        };
        large.links = vec![link; 129];
        let (kept, cuts) = cut(&large);
        assert_eq!((cuts.events, kept.events.len()), (72, 128));
        assert_eq!((cuts.links, kept.links.len()), (1, 128));
        assert_eq!(cuts.attributes, 2 + 2);
        assert_eq!(kept.attributes[0].0, "a0");
    }

    #[test]
    fn many_values_below_every_single_limit_are_bounded_together() {
        let mut large = span(1, 1);
        let attributes: Vec<Attribute> = (0..128).map(|at| (format!("a{at}").into(), text(16_000))).collect();
        let event = SpanEvent { time_unix_ns: 1, name: "e".to_owned(), attributes: attributes.clone() };
        large.events = vec![event; 128];
        large.resource = Arc::new(SpanResource { attributes });
        let (kept, cuts) = cut(&large);
        let bytes: usize =
            kept.events.iter().flat_map(|event| &event.attributes).map(|(_, it)| size(it)).sum();
        assert!(bytes <= MAX_SPAN_BYTES && kept.resource.attributes.len() == 2, "{bytes}");
        assert!(cuts.attributes > 128 * 120);
    }

    #[test]
    fn values_within_values_without_end_are_left_out_without_following_them() {
        let mut deep = AttributeValue::Integer(1);
        for _ in 0..1000 {
            deep = AttributeValue::List(vec![deep]);
        }
        let mut large = span(1, 1);
        large.attributes = vec![("deep".into(), deep), ("flat".into(), AttributeValue::Truth(true))];
        let (kept, cuts) = cut(&large);
        assert_eq!(cuts.attributes, 1);
        assert_eq!(kept.attributes[0].0, "flat");
    }
}
