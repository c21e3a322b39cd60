//! What stands above the graph, and the script that a click runs.

use super::{Captions, WIDTH_PX};
use crate::export::xml::escape;

/// All that stands before the boxes and the list of what is marked.
pub(super) fn head(height: u32, captions: &Captions<'_>, verdict_px: u32, subtitle: &str) -> String {
    let verdict = match captions.verdict {
        "" => String::new(),
        said => format!(
            r#"<text x="600" y="46" text-anchor="middle" font-family="sans-serif" font-size="14">{}</text>{}"#,
            escape(said),
            "\n"
        ),
    };
    format!(
        r##"<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<svg version="1.1" width="{WIDTH_PX}" height="{height}" viewBox="0 0 {WIDTH_PX} {height}" xmlns="http://www.w3.org/2000/svg" onload="begin()">
<style>.b{{cursor:pointer}}.b text{{font:12px monospace;pointer-events:none}}.b:hover rect{{stroke:#000}}.m,.o{{font:12px monospace}}.m{{cursor:pointer}}.m:hover{{text-decoration:underline}}</style>
<script><![CDATA[
{SCRIPT}]]></script>
<rect width="100%" height="100%" fill="#f8f8f8"/>
<text x="600" y="26" text-anchor="middle" font-family="sans-serif" font-size="17">{}</text>
{verdict}<text x="600" y="{}" text-anchor="middle" font-family="sans-serif" font-size="11" fill="#555">{}</text>
"##,
        escape(captions.title),
        46 + verdict_px,
        escape(subtitle)
    )
}

/// A click on a box shows it, and what is above and below it, over the whole width; one on what is marked the widest box of
/// it.
const SCRIPT: &str = "function begin() {
  const boxes = [...document.querySelectorAll('.b')];
  const show = (from, width) => {
    for (const box of boxes) {
      const left = Number(box.dataset.l), own = Number(box.dataset.w);
      const begin = Math.max(0, (left - from) / width), end = Math.min(1, (left + own - from) / width);
      const px = (end - begin) * 1180;
      box.style.display = px < 0.1 ? 'none' : '';
      const [, rect, text] = box.children;
      rect.setAttribute('x', 10 + begin * 1180);
      rect.setAttribute('width', Math.max(0, px));
      text.setAttribute('x', 13 + begin * 1180);
      const letters = Math.floor((px - 6) / 7), name = (box.dataset.m ?? '') + box.dataset.n;
      text.textContent = name.length <= letters ? name : letters < 3 ? '' : name.slice(0, letters - 2) + '..';
    }
  };
  for (const box of boxes)
    box.addEventListener('click', () => show(Number(box.dataset.l), Number(box.dataset.w)));
  for (const entry of document.querySelectorAll('.m'))
    entry.addEventListener('click', () => {
      const own = boxes.filter((box) => box.dataset.f === entry.dataset.f);
      const widest = own.sort((one, other) => Number(other.dataset.w) - Number(one.dataset.w))[0];
      if (widest !== undefined) show(Number(widest.dataset.l), Number(widest.dataset.w));
    });
}
";
