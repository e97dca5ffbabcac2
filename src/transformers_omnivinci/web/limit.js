// Refuses files beyond the limit of the server before a byte is sent; the server refuses them, too.
(() => {
  const size = (bytes) => (bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${(bytes / 1e6).toFixed(1)} MB`);
  const refuse = (event, files) => {
    const large = [...(files || [])].find((file) => file.size > OMNIVINCI_MAX_BYTES);
    if (!large) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (event.target.matches?.("input[type=file]")) event.target.value = "";
    const sentence = document.createElement("p");
    sentence.className = "ov-notice ov-error";
    sentence.setAttribute("role", "alert");
    sentence.textContent = `${large.name} has ${size(large.size)}: files of up to ${size(OMNIVINCI_MAX_BYTES)} are accepted.`;
    (document.querySelector("#ov-notice .prose") || document.querySelector("#ov-notice")).replaceChildren(sentence);
  };
  window.addEventListener("change", (event) => refuse(event, event.target.files), true);
  window.addEventListener("drop", (event) => refuse(event, event.dataTransfer?.files), true);
})();
