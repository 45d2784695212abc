// Lint rules: typescript-eslint's strict type-checked set, less what fights plain Node code.

import tseslint from 'typescript-eslint';

export default tseslint.config(
  { ignores: ['dist/', 'node_modules/', '.tap/', 'src/*/proto/*_pb.*'] },
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: {
      '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'separate-type-imports' }],
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      // Loops over typed arrays and buffers index where the length was just checked.
      '@typescript-eslint/no-non-null-assertion': 'off',
      // Interfaces that answer at once or later are implemented by async methods without await.
      '@typescript-eslint/require-await': 'off',
      '@typescript-eslint/no-confusing-void-expression': 'off',
      '@typescript-eslint/unified-signatures': 'off',
      '@typescript-eslint/no-invalid-void-type': 'off',
      '@typescript-eslint/no-extraneous-class': 'off',
      '@typescript-eslint/no-unnecessary-type-parameters': 'off',
      // Checks at a trust boundary look unnecessary to the types they defend.
      '@typescript-eslint/no-unnecessary-condition': 'off',
      '@typescript-eslint/no-unnecessary-boolean-literal-compare': 'off',
      '@typescript-eslint/return-await': ['error', 'error-handling-correctness-only'],
      '@typescript-eslint/use-unknown-in-catch-callback-variable': 'off',
      'no-console': 'error',
      'no-param-reassign': 'error',
      eqeqeq: ['error', 'always'],
      'no-var': 'error',
      'prefer-const': 'error',
    },
  },
  {
    // tap's own promises are awaited by tap; tests look into foreign shapes.
    files: ['test/**/*.ts'],
    rules: {
      '@typescript-eslint/no-floating-promises': [
        'error',
        {
          allowForKnownSafeCalls: [{ from: 'package', package: '@tapjs/core', name: 'test' }],
          allowForKnownSafePromises: [{ from: 'package', package: '@tapjs/core', name: 'PromiseWithSubtest' }],
        },
      ],
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-member-access': 'off',
      '@typescript-eslint/no-unsafe-argument': 'off',
      'no-console': 'off',
    },
  },
  {
    // All of this runs in virtual time too (test/sim): its time and its luck are handed in. What surrounds LevelDB does not.
    files: ['bridge', 'host', 'net', 'client', 'cache', 'tree', 'vfs'].map((room) => `src/${room}/**/*.ts`),
    ignores: ['src/net/worker-network.ts', 'src/tree/{index-database,table-check,check-tables}.ts'],
    rules: {
      'no-restricted-globals': ['error', 'setTimeout', 'setInterval', 'setImmediate'],
      'no-restricted-imports': ['error', 'timers', 'node:timers', 'timers/promises', 'node:timers/promises'],
      'no-restricted-syntax': [
        'error',
        ...['Date.now', 'Math.random', 'performance.now', 'AbortSignal.timeout'].map((name) => ({
          selector: `CallExpression[callee.object.name='${name.split('.')[0]}'][callee.property.name='${name.split('.')[1]}']`,
          message: 'Use the clock or the luck that is handed in.',
        })),
      ],
    },
  },
  { files: ['.ci/**/*.ts', 'src/cli/**/*.ts', 'test/bench/**/*.ts'], rules: { 'no-console': 'off' } },
);
