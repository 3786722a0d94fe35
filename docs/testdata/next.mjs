// Serves a route handler as Next.js does, as far as a handler can tell: node next.mjs ROUTE.JS PORT
import { createServer } from "node:http";
import { Readable } from "node:stream";
import { pathToFileURL } from "node:url";

const [file, port] = process.argv.slice(2);
const { POST } = await import(pathToFileURL(file));

createServer(async (incoming, outgoing) => {
  try {
    const answer = await POST(new Request(`http://localhost${incoming.url}`, {
      method: incoming.method, headers: incoming.headers, body: Readable.toWeb(incoming), duplex: "half",
    }));
    outgoing.writeHead(answer.status, Object.fromEntries(answer.headers));
    const reader = answer.body.getReader();
    outgoing.on("close", () => reader.cancel().catch(console.error));
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) outgoing.write(piece.value);
    outgoing.end();
  } catch (error) {
    console.error(error);
    outgoing.headersSent ? outgoing.destroy() : outgoing.writeHead(500).end();
  }
}).listen(Number(port), "127.0.0.1");
