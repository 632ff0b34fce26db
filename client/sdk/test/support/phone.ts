/** A device with an account at one realm, which becomes a group's and goes back. */
import { type Custody, keepAccount, openCustody } from "../../src/custody.js";
import { CustodyError } from "../../src/errors.js";
import { Unlocked } from "../../src/keys.js";
import { backUp, unlock } from "../../src/secrets.js";
import { keepAppKey } from "../../src/session.js";
import { memoryStorage } from "../../src/storage/memory.js";
import type { Storage } from "../../src/storage/storage.js";
import { convertToGroup, finishConversion } from "../../src/threshold/convert.js";
import { type Group, lockGroup } from "../../src/threshold/group.js";
import type { Asked } from "./daemon.js";
import { type Fate, fetchFrom, type Keeper, keepers, signIn } from "./group.js";

/** What becomes of each request to each realm. */
export type Fates = (keeper: Keeper, asked: Asked) => Fate;

/** A device with an account at the first realm, and the storage that a page finds there each time it is loaded. */
export class Phone {
  readonly #stores = new Map<string, Storage>();
  private constructor(
    readonly realms: readonly Keeper[],
    readonly unlocked: Unlocked,
  ) {}

  static async make(count: number): Promise<Phone> {
    const phone = new Phone(await keepers(count), await Unlocked.create());
    for (const keeper of phone.realms) keeper.bound = phone.unlocked;
    const single = await phone.single();
    await keepAccount(single, { account: "a-1" });
    single.transport.session = { token: "t", scope: "full" } as never;
    await keepAppKey(single, phone.unlocked);
    await backUp(single, phone.unlocked);
    return phone;
  }

  readonly storage = (name: string): Storage => {
    const kept = this.#stores.get(name) ?? memoryStorage();
    this.#stores.set(name, kept);
    return kept;
  };

  /** Another load of the page, signed in at the one realm. */
  async single(fate?: Fates): Promise<Custody> {
    const [{ url, realm }] = this.realms as [Keeper];
    const storage = this.storage("custodyd:notes");
    const fetch = fetchFrom(this.realms, fate);
    const { trust } = realm;
    const single = await openCustody({ url, app: "notes", realm: trust, storage, fetch });
    single.transport.session = { token: "t", scope: "full" } as never;
    if (single.account)
      single.unlocked = await Unlocked.open(this.unlocked.secret, this.unlocked.wrapped);
    return single;
  }

  options(among: readonly Keeper[], fate?: Fates) {
    return {
      app: "notes",
      threshold: 2,
      realms: among.map(({ url, realm }) => ({ url, realm: realm.trust })),
      storage: this.storage,
      fetch: fetchFrom(this.realms, fate),
      checkLog: false,
    };
  }

  /** The whole way, as one page would do it. */
  async convert(among: readonly Keeper[], fate?: Fates): Promise<Group> {
    const single = await this.single(fate);
    const group = await convertToGroup(single, this.options(among, fate));
    lockGroup(group);
    await finishConversion(single, group, signIn, { patience: 1000 });
    return group;
  }

  /** Whether the one realm gives the key, as on a new device. */
  async singleGives(): Promise<boolean> {
    const { url, realm } = this.realms[0]!;
    const { trust } = realm;
    const fetch = fetchFrom(this.realms);
    const storage = memoryStorage();
    const fresh = await openCustody({ url, app: "notes", realm: trust, storage, fetch });
    await keepAccount(fresh, { account: "a-1" });
    try {
      return (await unlock(fresh)).thumbprint === this.unlocked.thumbprint;
    } catch (error) {
      if (!(error instanceof CustodyError)) throw error;
      return false;
    }
  }
}
