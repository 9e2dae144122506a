// Formulas that Markdown has marked, drawn by the copy of KaTeX in this folder.
for (const place of document.querySelectorAll(".arithmatex")) {
  const display = place.tagName === "DIV";
  const formula = place.textContent.trim().replace(/^\\[([]/, "").replace(/\\[)\]]$/, "");
  katex.render(formula, place, {displayMode: display, throwOnError: false});
  // What ends a sentence stays with its formula.
  const after = place.nextSibling;
  const mark = !display && after?.nodeType === Node.TEXT_NODE && after.data.match(/^[.,;:!?)\u3001\u3002\uff0c\uff1b\uff1a\uff09]+/u);
  if (mark) {
    after.data = after.data.slice(mark[0].length);
    [...place.querySelectorAll(".base")].at(-1).append(mark[0]);
  }
}
