package api_test

import (
	jsonv1 "encoding/json"
	"fmt"
	"strings"
	"testing"

	"sluice/api"
)

// A page is bounded by its bytes too. However long the rows are, the pages together have every row
// once.
func TestAPageEndsByItsBytes(t *testing.T) {
	w := newWorld(t, nil)
	long := strings.Repeat("d", 2048)
	want := map[string]int{}
	for i := range 150 {
		m := w.store(fmt.Sprint(i), "", nil)
		_, err := w.client.UpdateMemory(t.Context(), api.UpdateMemoryRequest{MemoryID: m.MemoryID, Description: &long})
		w.check(err)
	}
	want["/v1/memories_list"] = 150
	for range 110 {
		n := int64(1)
		_, err := w.client.Begin(t.Context(), api.BeginRequest{
			CapsuleID: "default", Meta: api.Meta{Name: "a", Bytes: &n, Description: long},
		})
		w.check(err)
	}
	want["/v1/uploads_list"], want["/v1/sessions_list"] = 110, 110
	var owners []string
	for i := range 100 {
		p, _ := w.join(fmt.Sprint(i), false)
		owners = append(owners, p)
	}
	for i := range 80 {
		_, err := w.client.CreateCapsule(t.Context(), api.CreateCapsuleRequest{
			CapsuleID: fmt.Sprint("c", i), Owners: append(owners[:99:99], w.me.Principal),
		})
		w.check(err)
	}
	want["/v1/capsules_list"] = 81
	for path, n := range want {
		t.Run(path, func(t *testing.T) {
			w := w.in(t)
			seen, pages := map[string]bool{}, 0
			for cursor := ""; ; pages++ {
				a := w.do("GET", path+"?limit=1000&cursor="+cursor, "")
				if a.StatusCode != 200 || len(a.body) > 1<<20 {
					t.Fatalf("%d, %d bytes", a.StatusCode, len(a.body))
				}
				var page struct {
					Memories, Sessions, Capsules []map[string]any
					Next                         string `json:"next_cursor"`
				}
				w.check(jsonv1.Unmarshal(a.body, &page))
				for _, row := range append(append(page.Memories, page.Sessions...), page.Capsules...) {
					for _, key := range []string{"memory_id", "session_id", "capsule_id"} {
						if id, ok := row[key].(string); ok {
							if seen[id] {
								t.Errorf("%s is there twice", id)
							}
							seen[id] = true
							break
						}
					}
				}
				if cursor = page.Next; cursor == "" {
					break
				}
			}
			if len(seen) != n || pages == 0 {
				t.Errorf("%d rows of %d, and %d pages more than one", len(seen), n, pages)
			}
		})
	}
	w.until("nothing of the answers counts any more", func() bool { return w.server.Answers() == 0 })
}
