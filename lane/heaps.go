package lane

import "bytes"

// dueHeap is a heap.Interface of tickets, the one that is due first at the top.
type dueHeap []*ticket

func (h dueHeap) Len() int { return len(h) }

func (h dueHeap) Less(i, j int) bool {
	if h[i].due != h[j].due {
		return h[i].due < h[j].due
	}
	return bytes.Compare(h[i].ID[:], h[j].ID[:]) < 0
}

func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

func (h *dueHeap) Push(x any) {
	t := x.(*ticket)
	t.place = len(*h)
	*h = append(*h, t)
}

func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	t := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return t
}

// turnHeap is a heap.Interface of subjects, the one whose turn it is at the top.
type turnHeap []*subject

func (h turnHeap) Len() int           { return len(h) }
func (h turnHeap) Less(i, j int) bool { return h[i].before(h[j].turn) }

func (h turnHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

func (h *turnHeap) Push(x any) {
	s := x.(*subject)
	s.place = len(*h)
	*h = append(*h, s)
}

func (h *turnHeap) Pop() any {
	last := len(*h) - 1
	s := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return s
}
