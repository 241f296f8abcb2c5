package keeper

import "sync"

// Hold keeps places from being deleted until release is called. A backup copies what one state of
// the catalog names, and some of those places may be garbage by now. All other work goes on. Holds
// add up. They are in memory alone: none outlives its process.
func (k *Keeper) Hold() (release func()) {
	k.holds.Add(1)
	return sync.OnceFunc(func() { k.holds.Add(-1) })
}

// held reports whether places must stay. If a deletion was decided before a Hold, its place was
// garbage by then, and no state that is taken afterwards names it.
func (k *Keeper) held() bool { return k.holds.Load() > 0 }
