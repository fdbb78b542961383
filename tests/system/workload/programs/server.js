// Answers each line `check`: a timer and a worker thread have gone on.
const net = require("net");
const { Worker, isMainThread, parentPort } = require("worker_threads");

if (!isMainThread) {
  setInterval(() => parentPort.postMessage(1), 10);
  return;
}

let ticks = 0;
let messages = 0;
setInterval(() => ticks++, 10);
new Worker(__filename).on("message", () => messages++);

net.createServer((socket) => {
  socket.setEncoding("utf8");
  socket.on("error", () => {});
  socket.on("data", (line) => {
    const before = [ticks, messages];
    const asked = Date.now();
    const answer = setInterval(() => {
      const grown = line === "check\n" && ticks > before[0] && messages > before[1];
      if (!grown && Date.now() - asked < 10000) return;
      clearInterval(answer);
      socket.write(grown ? `ok ${process.pid}\n` : "wrong: nothing goes on\n");
    }, 5);
  });
}).listen(Number(process.argv[2]), "0.0.0.0");
