import { status, type ServiceError } from "@grpc/grpc-js";

import { ErrorInfo, Status } from "../gen/google_rpc.js";

const FINAL = new Set<status>([
  status.INVALID_ARGUMENT,
  status.NOT_FOUND,
  status.ALREADY_EXISTS,
  status.PERMISSION_DENIED,
  status.UNAUTHENTICATED,
  status.FAILED_PRECONDITION,
  status.OUT_OF_RANGE,
  status.UNIMPLEMENTED,
]);

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && "metadata" in error;
}

/**
 * The stable word for what went wrong, such as RUN_NOT_FOUND; empty if the server gave none, as for
 * a lost connection.
 */
export function reasonOf(error: unknown): string {
  if (!isServiceError(error)) return "";
  const [bytes] = error.metadata.get("grpc-status-details-bin");
  if (!(bytes instanceof Buffer)) return "";
  const info = Status.decode(bytes).details.find((detail) => detail.typeUrl.endsWith(".ErrorInfo"));
  return info ? ErrorInfo.decode(info.value).reason : "";
}

/** Tells people of an error. */
export function describe(error: unknown): string {
  if (!isServiceError(error)) return String(error);
  return `${status[error.code]} ${reasonOf(error)}: ${error.details}`;
}

/**
 * Whether trying again, with the same request or from the same cursor, fails again. Everything
 * else, a lost connection above all, is worth another try.
 */
export function isFinal(error: unknown): boolean {
  return !isServiceError(error) || FINAL.has(error.code);
}
