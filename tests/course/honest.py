"Answers to assignments 1 to 3 that were written from the student copy alone, by somebody who had not seen the solutions."
A1 = {
"logits": '''
def info_nce_logits(query, positive, negatives, temperature):
    q = F.normalize(query, dim=1); p = F.normalize(positive, dim=1); n = F.normalize(negatives, dim=1)
    pos = (q * p).sum(dim=1, keepdim=True)
    return torch.cat([pos, q @ n.t()], dim=1) / temperature
''',
"loss": '''
def info_nce(logits):
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))
''',
"logit-gradient": '''
def logit_gradient(logits):
    p = torch.softmax(logits, dim=1)
    p[:, 0] -= 1
    return p / logits.shape[0]
''',
"vector-gradients": '''
def info_nce_gradients(query, positive, negatives, temperature):
    s = torch.cat([torch.einsum("nd,nd->n", query, positive)[:, None], query @ negatives.T], dim=1) / temperature
    g = s.softmax(1)
    g[:, 0] -= 1
    g = g / len(query)
    dq = (g[:, :1] * positive + g[:, 1:] @ negatives) / temperature
    return dq, g[:, :1] * query / temperature, g[:, 1:].T @ query / temperature
''',
"step": '''
def moco_loss(query, key, queue, temperature=.2):
    with torch.no_grad():
        k = F.normalize(key, dim=1)
    q = F.normalize(query, dim=1)
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.detach().T], 1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))
'''}
A2 = {
"compose": '''
def compose(foreground, background, mask):
    return torch.where(mask[:, None], foreground, background)
''',
"at-stride": '''
def mask_at_stride(mask, stride):
    B, h, w = mask.shape
    o = stride // 2
    return mask[:, : h // stride * stride, : w // stride * stride][:, o::stride, o::stride]
''',
"rectangles": '''
def draw_masks(numbers, size, area=(.5, .8), aspect=(.8, 1.25)):
    h, w = size
    out = torch.zeros(len(numbers), h, w, dtype=torch.bool)
    for i, (u0, u1, u2, u3) in enumerate(numbers.tolist()):
        A = (area[0] + u0 * (area[1] - area[0])) * h * w
        r = math.exp(math.log(aspect[0]) + u1 * (math.log(aspect[1]) - math.log(aspect[0])))
        H = min(h, round(math.sqrt(A * r))); W = min(w, round(math.sqrt(A / r)))
        top = math.floor(u2 * (h - H + 1)); left = math.floor(u3 * (w - W + 1))
        out[i, top:top + H, left:left + W] = True
    return out
''',
"leak": '''
def position_auroc(train, test):
    score = train.double().mean(0).flatten()
    t = test.flatten(1)
    fg = t.sum(0).double(); bg = len(t) - fg
    diff = score[:, None] - score[None]
    win = (diff > 0).double() + .5 * (diff == 0).double()
    return float((fg[:, None] * bg[None] * win).sum() / (fg.sum() * bg.sum()))
''',
"anywhere": '''
def place_anywhere(numbers, length, side, stride):
    first = stride // 2
    last = side - stride + stride // 2
    low = first - length + 1
    return low + torch.floor(numbers * (last - low + 1))
'''}
A3 = {
"centres": '''
def cell_centres(grid, stride):
    rows, cols = grid
    return torch.tensor([[(c + .5) * stride, (r + .5) * stride] for r in range(rows) for c in range(cols)], dtype=torch.float32)
''',
"features": '''
def match_features(query, key):
    q = F.normalize(query.flatten(2), dim=1); k = F.normalize(key.flatten(2), dim=1)
    return torch.bmm(q.transpose(1, 2), k).argmax(2)
''',
"mutual": '''
def mutual_matches(match, back):
    mine = torch.arange(match.shape[1])[None].expand_as(match)
    return torch.where(back.gather(1, match) == mine, match, -torch.ones_like(match))
''',
"geometry": '''
def geometric_matches(box_a, mirrored_a, box_b, mirrored_b, size, stride):
    n = size // stride
    c = (torch.arange(n).double() + .5) * stride / size
    y, x = torch.meshgrid(c, c, indexing="ij")
    x = x.flatten()[None].expand(len(box_a), -1); y = y.flatten()[None].expand(len(box_a), -1)
    a = box_a.double(); b = box_b.double()
    x = torch.where(mirrored_a[:, None], 1 - x, x)
    X = a[:, 0:1] + x * a[:, 2:3]; Y = a[:, 1:2] + y * a[:, 3:4]
    u = (X - b[:, 0:1]) / b[:, 2:3]; v = (Y - b[:, 1:2]) / b[:, 3:4]
    u = torch.where(mirrored_b[:, None], 1 - u, u)
    px = u * size; py = v * size
    ok = (px >= 0) & (px < size) & (py >= 0) & (py < size)
    col = (px // stride).long(); row = (py // stride).long()
    return torch.where(ok, row * n + col, torch.full_like(row, -1))
''',
"dense-loss": '''
def dense_loss(query, key, match, queue, temperature=.2):
    r = F.normalize(query, dim=1); t = F.normalize(key, dim=1).detach()
    rows, pos = [], []
    b, i = torch.where(match >= 0)
    if len(b) == 0:
        return (query * 0).sum()
    ri = r[b, :, i]; ti = t[b, :, match[b, i]]
    logits = torch.cat([(ri * ti).sum(1, keepdim=True), ri @ queue.T], 1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(ri), dtype=torch.long))
'''}
