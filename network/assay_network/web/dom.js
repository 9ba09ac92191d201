// Elements made from text. The rules of every page here:
//   - plain ES modules, as they are served: no build step, no library, no code from elsewhere
//   - what strangers wrote (names, models, regions, answers) becomes text, never markup: elements
//     are made by these functions only, and the server's policy refuses the browser's other ways
//   - requests go to the page's own origin only

const SVG = "http://www.w3.org/2000/svg";
const LINKS = /^(#|\.{0,2}\/|https?:\/\/)/; // whatever else a link could be, it could be code

// An element. `attributes`: null and false are left out, true is an empty one; a function is a
// listener for the event of that name (click, submit). Children: nodes, texts, numbers, arrays of
// these; null, undefined and false are left out.
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

// The same for drawings.
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

// Puts `children` in the place of what `parent` holds.
export function fill(parent, ...children) {
  parent.replaceChildren(...nodes(children));
  return parent;
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") {
      node.addEventListener(name, value);
      continue;
    }
    if (name.startsWith("on") || name === "style") throw new TypeError(`no ${name} in attributes`);
    if (name === "href" && !LINKS.test(value)) throw new TypeError("a link leads to a page");
    node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...nodes(children));
  return node;
}

function nodes(children) {
  return children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : document.createTextNode(String(child))));
}
