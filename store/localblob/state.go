package localblob

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"sluice/internal/durable"
)

// state is the file of that name.
type state struct {
	Incarnation uint64 `json:"life"`
	SinceCrash  uint64 `json:"trusted"`
	SinceReboot uint64 `json:"rebooted"`
	Boot        string `json:"boot"`
	Folder      string `json:"folder"`
	Clean       bool   `json:"clean"`
}

// errState: the state can't be understood.
var errState = errors.New("its file state is damaged")

// stateRemedy is what can be done about a missing state.
const stateRemedy = "Is its disk mounted, and the right one? Else restore a backup, or let sluice check --repair " +
	"--rejoin go on without it: then all content is compared anew"

// readState gives the state of the last incarnation; ok is false if there was none.
func readState(on durable.FS, dir string) (st state, ok bool, err error) {
	text, err := durable.ReadFile(on, filepath.Join(dir, "state"))
	if errors.Is(err, fs.ErrNotExist) {
		return state{Clean: true}, false, nil
	}
	if err != nil {
		return st, false, err
	}
	if err := json.Unmarshal(text, &st); err != nil || st.Incarnation == 0 {
		return st, false, fmt.Errorf("%w: it says %.60q. %s", errState, text, stateRemedy)
	}
	return st, true, nil
}

// beginIncarnation begins an incarnation, and notes which content the end of the last one puts in
// doubt.
func (s *Store) beginIncarnation(was found) error {
	old := was.state
	if !was.hasState && s.opts.Rejoin {
		newest, err := s.newestIncarnation()
		if err != nil {
			return err
		}
		old.Incarnation, old.Clean = newest, newest == 0
	}
	now := state{
		Incarnation: max(old.Incarnation, s.opts.AfterIncarnation) + 1, SinceCrash: old.SinceCrash,
		SinceReboot: old.SinceReboot, Boot: durable.Boot(s.fs),
	}
	info, err := s.fs.Stat(s.dir)
	if err != nil {
		return err
	}
	now.Folder = info.ID
	moved := old.Folder != "" && old.Folder != now.Folder || old.Incarnation < s.opts.AfterIncarnation
	if !old.Clean || moved {
		now.SinceCrash = now.Incarnation
		if moved || now.Boot == "" || now.Boot != old.Boot {
			now.SinceReboot = now.Incarnation
		}
	}
	s.state = now
	return s.writeState()
}

func (s *Store) writeState() error {
	text, err := json.Marshal(s.state)
	if err != nil {
		return err
	}
	return s.writeFile("state", append(text, '\n'))
}
