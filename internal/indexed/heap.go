// Package indexed has a heap whose items know where they are in it, so that any of them can be moved or removed.
package indexed

// Item is what a heap has in it.
type Item[T any] interface {
	// Before says that it is nearer to the top than another item.
	Before(other T) bool
	// Moved says where in the heap it is now: what heap.Fix and heap.Remove are told of it.
	Moved(place int)
}

// Heap is a heap.Interface. An item is in one heap at a time.
type Heap[T Item[T]] []T

// Len implements heap.Interface.
func (h Heap[T]) Len() int { return len(h) }

// Less implements heap.Interface.
func (h Heap[T]) Less(i, j int) bool { return h[i].Before(h[j]) }

// Swap implements heap.Interface.
func (h Heap[T]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].Moved(i)
	h[j].Moved(j)
}

// Push implements heap.Interface.
func (h *Heap[T]) Push(x any) {
	item := x.(T)
	item.Moved(len(*h))
	*h = append(*h, item)
}

// Pop implements heap.Interface.
func (h *Heap[T]) Pop() any {
	last := len(*h) - 1
	item := (*h)[last]
	var none T
	(*h)[last] = none // so that it is not kept
	*h = (*h)[:last]
	return item
}
