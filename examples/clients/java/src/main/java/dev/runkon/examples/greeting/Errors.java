package dev.runkon.examples.greeting;

import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.util.EnumSet;
import java.util.Set;

/** What the errors of calls mean. */
final class Errors {
  private static final Set<Status.Code> FINAL =
      EnumSet.of(
          Status.Code.INVALID_ARGUMENT,
          Status.Code.NOT_FOUND,
          Status.Code.ALREADY_EXISTS,
          Status.Code.PERMISSION_DENIED,
          Status.Code.UNAUTHENTICATED,
          Status.Code.FAILED_PRECONDITION,
          Status.Code.OUT_OF_RANGE,
          Status.Code.UNIMPLEMENTED);

  private Errors() {}

  /**
   * The stable word for what went wrong, such as RUN_NOT_FOUND; empty if the server gave none, as
   * for a lost connection.
   */
  static String reason(Throwable error) {
    var status = StatusProto.fromThrowable(error);
    if (status == null) {
      return "";
    }
    try {
      for (var detail : status.getDetailsList()) {
        if (detail.is(ErrorInfo.class)) {
          return detail.unpack(ErrorInfo.class).getReason();
        }
      }
    } catch (InvalidProtocolBufferException e) {
      return ""; // not from a Runkon
    }
    return "";
  }

  /** Tells people of an error. */
  static String describe(Throwable error) {
    if (error instanceof StatusRuntimeException failure) {
      var status = failure.getStatus();
      return status.getCode() + " " + reason(error) + ": " + status.getDescription();
    }
    return error.toString();
  }

  /**
   * Whether trying again, with the same request or from the same cursor, fails again. Everything
   * else, a lost connection above all, is worth another try.
   */
  static boolean isFinal(Throwable error) {
    return FINAL.contains(Status.fromThrowable(error).getCode());
  }
}
