"""What nomadserve can do: one public function a verb, which yields events. No click, no printing."""
