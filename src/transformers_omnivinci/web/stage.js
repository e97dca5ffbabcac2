// Links a clip's timeline with its player. `element` is the root of Gradio's component, whose content changes.
const find = (selector) => element.querySelector(selector);
const clipOf = (track) => JSON.parse(track.dataset.clip);
const format = (second) => `${second.toFixed(1)} s`;

function describe(clip, second) {
  const parts = [format(second)];
  const seen = clip.frames.filter((one) => one <= second + 1e-3);
  if (clip.frames.length) parts.push(seen.length ? `last frame seen: ${format(seen[seen.length - 1])}` : "no frame yet");
  parts.push(clip.heard.some(([start, end]) => start <= second && second <= end) ? "heard" : "not heard");
  const group = clip.groups.find(([, start, end]) => start <= second && second < end) || clip.groups[clip.groups.length - 1];
  if (group[0].startsWith("group")) parts.push(`${group[0]}, ${group[3]} tokens`);
  return parts.join(" · ");
}

function show(second) {
  const track = find(".ov-track");
  if (!track) return;
  const clip = clipOf(track), text = describe(clip, second), cursor = find(".ov-cursor");
  cursor.hidden = false;
  cursor.style.left = `${(100 * second) / clip.duration}%`;
  find(".ov-readout").textContent = text;
  track.setAttribute("aria-valuenow", second.toFixed(2));
  track.setAttribute("aria-valuetext", text);
}

function seek(second) {
  const track = find(".ov-track"), player = find("video, audio");
  const within = Math.min(Math.max(second, 0), clipOf(track).duration);
  if (player && Number.isFinite(player.duration)) player.currentTime = Math.min(within, player.duration);
  show(within);
}

function secondAt(track, event) {
  const box = track.getBoundingClientRect();
  return (Math.min(Math.max(event.clientX - box.left, 0), box.width) / box.width) * clipOf(track).duration;
}

element.addEventListener("pointermove", (event) => {
  const track = event.target.closest(".ov-track");
  if (track) show(secondAt(track, event));
});
element.addEventListener("click", (event) => {
  const track = event.target.closest(".ov-track");
  if (track) seek(secondAt(track, event));
});
element.addEventListener("keydown", (event) => {
  const track = event.target.closest(".ov-track");
  if (!track) return;
  const now = Number(track.getAttribute("aria-valuenow")), last = clipOf(track).duration;
  const steps = { ArrowLeft: now - 0.5, ArrowRight: now + 0.5, PageDown: now - 5, PageUp: now + 5, Home: 0, End: last };
  if (!(event.key in steps)) return;
  event.preventDefault();
  seek(steps[event.key]);
});
// Events of players do not bubble, but they can be captured.
element.addEventListener("timeupdate", (event) => show(event.target.currentTime), true);
element.addEventListener("error", (event) => {
  if (!event.target.matches("video, audio")) return;
  event.target.hidden = true;
  find(".ov-unplayable").hidden = false;
}, true);
