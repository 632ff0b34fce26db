// The rules of the client's TypeScript. Type-aware, so that a forgotten `await` is an error.
import { fileURLToPath } from "node:url";
import eslint from "@eslint/js";
import tseslint from "typescript-eslint";

export default tseslint.config(
  { ignores: ["**/dist/", "build/", "sdk/src/openapi.ts", "**/*.mjs", "eslint.config.js"] },
  eslint.configs.recommended,
  tseslint.configs.strictTypeChecked,
  {
    languageOptions: {
      parserOptions: {
        project: "./tsconfig.json",
        tsconfigRootDir: fileURLToPath(new URL(".", import.meta.url)),
      },
    },
    rules: {
      "max-lines": ["error", { max: 300 }],
      "max-lines-per-function": ["error", { max: 80 }],
      "max-params": ["error", 6],
      "no-console": "error",
      // A constructor that only narrows the types of its parameters is not useless.
      "@typescript-eslint/no-useless-constructor": "off",
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
    },
  },
  {
    files: ["sdk/test/**", "e2e/**", "bench/**"],
    rules: {
      "max-lines-per-function": "off",
      // node:test's own promises are awaited by the runner.
      "@typescript-eslint/no-floating-promises": [
        "error",
        { allowForKnownSafeCalls: ["test", "describe", "it"] },
      ],
      "@typescript-eslint/no-non-null-assertion": "off",
    },
  },
);
