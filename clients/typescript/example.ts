/** A worker that takes one due execution, says what it does, keeps its lease, and reports how it ended. */

import { Client, type Execution } from "./client";

async function exportInvoices(run: Execution, stopped: AbortSignal): Promise<{ exported: number }> {
  let exported = 0;
  while (exported < 3 && !stopped.aborted) {
    exported += 1;
  }
  return { exported };
}

export async function workOnce(client: Client, task: string): Promise<Execution | undefined> {
  const [run] = await client.claim({ worker: "node", tasks: [task], wait_seconds: 10 });
  if (run === undefined || run.fence == null) {
    return undefined;
  }
  const { id, fence } = run;
  await client.start(id, { fence });
  const stop = new AbortController();
  const beat = setInterval(
    async () => {
      const said = await client.heartbeat(id, { fence });
      if (said.cancel_requested) {
        stop.abort();
      }
    },
    (run.heartbeat_every_seconds ?? 10) * 1000,
  );
  try {
    await client.logs(id, { fence, first_seq: 0, entries: [{ level: "INFO", message: `for ${run.nominal_local}` }] });
    const result = await exportInvoices(run, stop.signal);
    return await client.complete(id, { fence, outcome: stop.signal.aborted ? "cancelled" : "finished", result });
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return await client.complete(id, { fence, outcome: "failed", error: { type: "Error", message } });
  } finally {
    clearInterval(beat);
  }
}
