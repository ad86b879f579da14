/** The worker protocol for JavaScript: one function a call, typed from the description of the API; no dependencies. */

import type { components, operations } from "./types";

export type Execution = components["schemas"]["Execution"];
export type Problem = components["schemas"]["Problem"];

/** The operations of which a body is JSON, by their ids. */
type Body<Name extends keyof operations> = operations[Name] extends {
  requestBody: { content: { "application/json": infer Given } };
}
  ? Given
  : never;

/** What a refused call throws: `problem.code` is a stable word, `problem.hint` says how to mend it. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly problem: Problem,
  ) {
    super(problem.detail ?? problem.title);
  }
}

/** Speaks to one server. Every call has a deadline of `seconds`, and a claim its wait beside it. */
export class Client {
  constructor(
    private readonly url: string,
    private readonly token: string,
    private readonly seconds = 10,
  ) {}

  async claim(body: Body<"claim">): Promise<Execution[]> {
    const given = await this.post<components["schemas"]["Given"]>("claims", body, body.wait_seconds ?? 0);
    return given.executions;
  }

  begin(body: Body<"beginExecution">): Promise<Execution> {
    return this.post("executions", body);
  }

  start(id: string, body: Body<"startExecution">): Promise<Execution> {
    return this.post(`executions/${id}/start`, body);
  }

  heartbeat(id: string, body: Body<"heartbeat">): Promise<components["schemas"]["Beat"]> {
    return this.post(`executions/${id}/heartbeat`, body);
  }

  logs(id: string, body: Body<"appendLogs">): Promise<components["schemas"]["Appended"]> {
    return this.post(`executions/${id}/logs`, body);
  }

  complete(id: string, body: Body<"completeExecution">): Promise<Execution> {
    return this.post(`executions/${id}/complete`, body);
  }

  release(id: string, body: Body<"releaseExecution">): Promise<Execution> {
    return this.post(`executions/${id}/release`, body);
  }

  private async post<Answer>(path: string, body: object, wait = 0): Promise<Answer> {
    const reply = await fetch(`${this.url}/api/v1/sdk/${path}`, {
      method: "POST",
      headers: { Authorization: `Bearer ${this.token}`, "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout((this.seconds + wait) * 1000),
    });
    const answer: unknown = await reply.json();
    if (!reply.ok) {
      throw new Refused(reply.status, answer as Problem);
    }
    return answer as Answer;
  }
}
