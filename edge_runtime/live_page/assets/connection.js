// The stream of fixes. Silence counts as a lost connection, and it is tried again for ever.

const SILENCE_MS = 7000, FIRST_RETRY_MS = 500, LONGEST_RETRY_MS = 3000;

export function connect(handlers, onState) {
  let source = null, silence = 0, retry = 0, wait = FIRST_RETRY_MS;

  const alive = () => {
    clearTimeout(silence);
    silence = setTimeout(lost, SILENCE_MS);
  };
  const lost = () => {
    clearTimeout(silence);
    clearTimeout(retry);
    if (source) source.close();
    source = null;
    onState("lost");
    retry = setTimeout(open, wait);
    wait = Math.min(wait * 1.5, LONGEST_RETRY_MS);
  };
  const open = () => {
    clearTimeout(retry);
    if (source) return;
    source = new EventSource("/events");
    alive();
    source.onerror = lost;
    source.addEventListener("hello", () => { wait = FIRST_RETRY_MS; onState("live"); });
    for (const [name, handler] of Object.entries({ beat: () => {}, ...handlers }))
      source.addEventListener(name, (event) => { alive(); handler(JSON.parse(event.data)); });
  };
  addEventListener("online", open);
  addEventListener("pagehide", () => { if (source) source.close(); source = null; });
  addEventListener("pageshow", (event) => { if (event.persisted) open(); });
  open();
}
