"""What is asked of the page from inside of it."""

# Every piece of text that is seen, with the contrast to what is behind it (WCAG 2.2, 1.4.3), where that is too low.
LOW_CONTRAST = """
const parse = (text) => { const n = (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number); return {r: n[0], g: n[1], b: n[2], a: n.length > 3 ? n[3] : 1}; };
const channel = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
const light = (c) => 0.2126 * channel(c.r) + 0.7152 * channel(c.g) + 0.0722 * channel(c.b);
const behind = (element) => {
  const box = element.closest('g.n') && element.closest('g.n').querySelector('rect');
  if (box && element.namespaceURI.endsWith('svg')) { const fill = getComputedStyle(box).fill; if (fill !== 'none') return parse(fill); }
  for (let one = element; one; one = one.parentElement) { const c = parse(getComputedStyle(one).backgroundColor); if (c.a > 0) return c; }
  return {r: 255, g: 255, b: 255, a: 1};
};
const low = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let node = walker.nextNode(); node; node = walker.nextNode()) {
  const element = node.parentElement, style = getComputedStyle(element);
  if (!node.data.trim() || element.closest('script, title, style') || !element.getClientRects().length) continue;
  const svg = element.namespaceURI.endsWith('svg');
  const [a, b] = [light(parse(svg ? style.fill : style.color)), light(behind(element))].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05), size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
  if (ratio < (large ? 3 : 4.5)) low.push(`${node.data.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
}
return [...new Set(low)];
"""

# Everything that reaches beyond the width of the screen, but not what scrolls in a box of its own.
TOO_WIDE = """
const wide = [];
for (const one of document.body.querySelectorAll('*')) {
  if (one.closest('.scroll') && !one.matches('.scroll')) continue;
  const box = one.getBoundingClientRect();
  if (box.width && (box.right > innerWidth + 1 || box.left < -1)) wide.push(one.tagName + ' ' + one.textContent.trim().slice(0, 30));
}
if (document.documentElement.scrollWidth > innerWidth) wide.push('the page scrolls sideways');
return wide;
"""

# The heading and the reasons, as a reader sees them on the first screen.
FIRST_SCREEN = """
const seen = (one) => { const box = one.getBoundingClientRect(); return box.top >= 0 && box.bottom <= innerHeight; };
return [document.querySelector('h1'), ...document.querySelectorAll('.verdict li')].filter(seen).map((one) => one.textContent);
"""

# What has a name for readers that do not see: every image and every cell without text.
UNNAMED = """
const bare = [];
for (const one of document.querySelectorAll('svg:not([aria-hidden]), meter, img')) if (!one.getAttribute('aria-label')) bare.push(one.outerHTML.slice(0, 60));
const levels = [...document.querySelectorAll('h1, h2, h3')].map((one) => Number(one.tagName[1]));
levels.reduce((before, now) => { if (now > before + 1) bare.push(`h${now} after h${before}`); return now; }, 0);
if (levels.filter((level) => level === 1).length !== 1) bare.push('not one h1');
if (!document.documentElement.lang) bare.push('no language');
return bare;
"""
