package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// progress shows how far transfers are: on a terminal bars with rate and time left, and in a pipe a
// plain line now and then.
type progress struct {
	e    *env
	bars *mpb.Progress // nil in a pipe

	mu    sync.Mutex
	files map[string]*meter
}

// plainEvery is how often a plain line is written at most.
const plainEvery = 10 * time.Second

// meter is one file on its way. The bar's own goroutine reads it while it draws, and a caller that
// sets the bar waits for that. So no goroutine may hold a lock in one of these that the other
// takes.
type meter struct {
	bar     *mpb.Bar
	name    string
	started time.Time
	said    time.Time // guarded by progress.mu
	first   int64     // bytes that were there at the start
	last    atomic.Int64
}

func newProgress(e *env) *progress {
	p := &progress{e: e, files: map[string]*meter{}}
	if f, ok := e.stderr.(*os.File); ok && !e.json && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		p.bars = mpb.New(mpb.WithOutput(e.stderr), mpb.WithWidth(40), mpb.WithRefreshRate(150*time.Millisecond))
	}
	return p
}

// out is where messages go while bars are shown: above them.
func (p *progress) out() io.Writer {
	if p.bars != nil {
		return p.bars
	}
	return p.e.stderr
}

// set says how far a file is. total is -1 if it is not known. done may go back.
func (p *progress) set(name string, done, total int64) {
	p.mu.Lock()
	now := time.Now()
	m := p.files[name]
	if m == nil {
		m = &meter{name: name, started: now, said: now, first: done}
		p.files[name] = m
		if p.bars != nil {
			m.bar = p.add(m, total)
		}
	}
	m.last.Store(done)
	speak := m.bar == nil && !p.e.json && now.Sub(m.said) >= plainEvery
	if speak {
		m.said = now
	}
	p.mu.Unlock()
	if m.bar != nil {
		m.bar.SetCurrent(done)
	}
	if !speak {
		return
	}
	rate, left := m.rate(now, total)
	if total < 0 {
		p.e.say("%s: %s, %s", clean(name), size(done), rate)
	} else {
		p.e.say("%s: %d %% of %s, %s, %s", clean(name), done*100/max(total, 1), size(total), rate, left)
	}
}

// rate gives the average since the start, and what it means for the rest.
func (m *meter) rate(now time.Time, total int64) (rate, left string) {
	t := now.Sub(m.started).Seconds()
	last := m.last.Load()
	moved := last - m.first
	if t < 0.2 || moved <= 0 {
		return "- /s", "? left"
	}
	perSecond := float64(moved) / t
	rate = size(int64(perSecond)) + "/s"
	if total < 0 {
		return rate, ""
	}
	return rate, (time.Duration(float64(total-last)/perSecond) * time.Second).String() + " left"
}

func (p *progress) add(m *meter, total int64) *mpb.Bar {
	show := decor.Any(func(s decor.Statistics) string {
		rate, left := m.rate(time.Now(), total)
		if total < 0 {
			return fmt.Sprintf(" %s  %s", size(s.Current), rate)
		}
		return fmt.Sprintf(" %s of %s  %s  %s", size(min(s.Current, total)), size(total), rate, left)
	})
	shown := clean(m.name)
	if r := []rune(shown); len(r) > 30 {
		shown = string(r[:14]) + "…" + string(r[len(r)-15:])
	}
	// The bar is never complete by itself: bytes on their way may have to go again. end removes it.
	return p.bars.New(
		max(total, 0)+1, mpb.BarStyle().Rbound("|"), mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name(shown+" ")), mpb.AppendDecorators(show),
	)
}

// end says that a file is done, or has failed.
func (p *progress) end(name string) {
	p.mu.Lock()
	m := p.files[name]
	delete(p.files, name)
	p.mu.Unlock()
	if m != nil && m.bar != nil {
		m.bar.Abort(true)
		m.bar.Wait()
	}
}

// close removes the bars that are left from the terminal.
func (p *progress) close() {
	if p.bars == nil {
		return
	}
	p.mu.Lock()
	left := slices.Collect(maps.Values(p.files))
	p.mu.Unlock()
	for _, m := range left {
		m.bar.Abort(true)
	}
	p.bars.Wait()
}
