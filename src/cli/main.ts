export async function main(args: string[]): Promise<void> { console.log(process.version, args); }
