package attack

import (
	"math/rand/v2"
	"time"
)

// together is how long a mixture goes on before the server is looked at.
const together = 10 * time.Second

// mixture is several attacks at the same time.
func mixture(of []attack, seed uint64) attack {
	return attack{
		many: true, keeps: 256, // the files of idle uploads
		prepare: func(v *victim) {
			for _, a := range of {
				if a.prepare != nil {
					a.prepare(v)
				}
			}
		},
		strike: func(v *victim) {
			v.begins(of, seed)
			time.Sleep(together)
		},
	}
}

// begins makes attacks again and again until the attackers leave, each attack for itself. Between
// two strikes an attacker hangs up or not, by chance.
func (v *victim) begins(of []attack, seed uint64) {
	for i, a := range of {
		one := &victim{
			T: v.T, srv: v.srv, addr: v.addr, attacker: v.attacker, mallory: v.mallory,
			session: v.session, content: v.content, gapped: v.gapped, many: true,
		}
		dice := rand.New(rand.NewPCG(seed, uint64(i)))
		v.keep(closer(one.end))
		v.wg.Go(func() {
			defer one.wg.Wait()
			time.Sleep(time.Duration(dice.IntN(1000)) * time.Millisecond)
			for ; !one.gone(); time.Sleep(50 * time.Millisecond) {
				a.strike(one)
				if dice.IntN(2) == 0 {
					one.mu.Lock()
					one.hangUp()
					one.mu.Unlock()
				}
			}
		})
	}
}

// end makes the attackers leave, and does not wait for them.
func (v *victim) end() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.leaving = true
	v.hangUp()
	return nil
}

type closer func() error

func (c closer) Close() error { return c() }
