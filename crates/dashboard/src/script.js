// Replaces the content when the sidecar says that it changed; keeps what is open, focused and scrolled.
(() => {
  const live = document.getElementById("live");
  const say = (state, text) => { live.className = state; live.textContent = text; };
  const source = new EventSource("/events");
  source.onopen = () => say("on", "live");
  source.onerror = () => say("off", "not connected");
  source.onmessage = (event) => {
    const main = document.querySelector("main");
    const open = [...main.querySelectorAll("details[open]")].map((one) => one.id);
    const focused = document.activeElement && document.activeElement.id;
    main.innerHTML = JSON.parse(event.data);
    open.forEach((id) => { const one = document.getElementById(id); if (one) one.open = true; });
    if (focused) { const one = document.getElementById(focused); if (one) one.focus({ preventScroll: true }); }
    say("on", "live");
  };
})();
