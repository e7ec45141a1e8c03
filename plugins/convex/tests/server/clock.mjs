// The clock of functions and of what they schedule, which a control can put ahead.
// Imported before convex-test, which keeps the Date that it finds.

const real = Date.now;
let ahead = 0;

globalThis.Date = class extends Date {
  constructor(...args) {
    if (args.length) super(...args);
    else super(Date.now());
  }

  static now() {
    return real() + ahead;
  }
};

export function setClockAhead(ms) {
  ahead = ms;
}
