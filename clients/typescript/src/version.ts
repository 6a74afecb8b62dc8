// The version of this SDK, as package.json says it.

export const SDK_VERSION = "0.1.0";
