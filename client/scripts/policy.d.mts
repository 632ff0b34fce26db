export declare const contentPolicy: (daemons: readonly string[]) => string;
export declare const TYPES: Readonly<Record<string, string>>;
