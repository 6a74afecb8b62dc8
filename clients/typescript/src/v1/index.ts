// The generated code of proto/: messages with their schemas, and services for a client of Connect.

export * from "./admin_pb.js";
export * from "./common_pb.js";
export * from "./event_pb.js";
export * from "./function_pb.js";
export * from "./run_pb.js";
export * from "./step_pb.js";
