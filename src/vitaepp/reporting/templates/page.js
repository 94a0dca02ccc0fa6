"use strict";
for (const viewer of document.querySelectorAll(".viewer")) {
  const subject = viewer.querySelector(".subject"), channel = viewer.querySelector(".channel");
  const slider = viewer.querySelector("input"), output = viewer.querySelector("output");
  const sheets = [...viewer.querySelectorAll(".sheet")], told = viewer.querySelectorAll(".told");
  const chosen = () => {
    const of = sheets.filter(s => s.dataset.subject === subject.value);
    return of.find(s => s.dataset.channel === channel.value) || of[0];
  };
  const show = () => {
    const sheet = chosen(), slices = +sheet.dataset.slices, step = +sheet.dataset.step;
    slider.max = slices - 1;
    const k = Math.min(+slider.value, slices - 1);
    for (const s of sheets) s.hidden = s !== sheet;
    for (const t of told) t.hidden = t.dataset.subject !== subject.value;
    sheet.firstElementChild.style.transform = `translateY(-${100 * k / slices}%)`;
    output.value = `${k * step + 1}`;
    slider.setAttribute("aria-valuetext", `${k * step + 1}, ${k + 1} of ${slices} shown`);
    const slice = slices > 1 ? `, slice ${k * step + 1}` : "";
    viewer.querySelector(".now").textContent = `${subject.value}, ${sheet.dataset.channel}${slice}`;
  };
  channel.addEventListener("change", show);
  subject.addEventListener("change", () => {
    const { slices, start } = chosen().dataset;
    slider.max = slices - 1;
    if (start !== undefined) slider.value = start;
    show();
  });
  slider.addEventListener("input", show);
  viewer.querySelector(".controls").hidden = false;
  show();
}
const tip = document.getElementById("tip");
for (const dot of document.querySelectorAll(".dot")) {
  dot.querySelector("title").remove();
  dot.addEventListener("pointerenter", event => {
    tip.textContent = dot.dataset.tip;
    tip.hidden = false;
    tip.style.left = Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8) + "px";
    tip.style.top = event.clientY - tip.offsetHeight - 8 + "px";
  });
  dot.addEventListener("pointerleave", () => { tip.hidden = true; });
}
